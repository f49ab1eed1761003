"""One topology file describes a WireGuard network; every host's own network stack runs it.

The pipeline, in the order of the packages:

    text -> nodes with places -> specification -> topology -> plan of a host -> artifacts -> disk
            syntax               syntax           model       routing, checks,  managers     system
                                                              plan
"""

__version__ = "0.1.0"
