"""The import dialogue of desktops, `wgnet-import-dialog`. Stage: desktop, beside the command line and on top of it.

`summary` has the words, `opened` and `worker` do what the command line does, and `dialog` alone knows GTK.
"""
