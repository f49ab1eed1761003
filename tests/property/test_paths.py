"""The path that wins is the one that the format names, both ways, in every part, and whoever else joins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from property.networks import Draft, drafts, public_key
from property.reference import MOST_PATHS, graph_of
from property.sound import routing_of
from wgnet.routing.links import bits


@st.composite
def webs(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Draft:
    """Draw a few hosts with many links and relays: full of ties."""
    count = draw(st.integers(3, 9))
    names = [f"h{number * 7 % 10}" for number in range(count)]
    draft = Draft(subnets=["10.80.0.0/24"])
    relays = draw(st.sets(st.sampled_from(names)))
    for number, name in enumerate(names):
        draft.hosts[name] = {
            "addresses": [f"10.80.0.{number + 1}"],
            "public-key": public_key(name),
            "endpoint": f"{name}.example.net",
        }
        if name in relays:
            draft.hosts[name]["forward"] = True
    pairs = [(one, two) for number, one in enumerate(names) for two in names[number + 1 :]]
    links = draw(st.lists(st.sampled_from(pairs), min_size=2, unique=True))
    hubs = draw(st.lists(st.sampled_from(names), max_size=3, unique=True))
    draft.rules = [{"link": list(pair)} for pair in links]
    for hub in hubs:
        spoke = draw(st.sampled_from([name for name in names if name != hub]))
        draft.rules.append({"hub": [hub], "spokes": [spoke]})
    return draft


@given(webs())
def test_path_is_the_one_that_the_format_names(draft: Draft) -> None:
    graph, routing = graph_of(draft), routing_of(draft)
    by_name = routing.topology.by_name
    for one in draft.hosts:
        view = routing.paths.view(by_name[one])
        for two in draft.hosts:
            if one == two or len(graph.shortest(one, two)) > MOST_PATHS:
                continue
            expected = graph.best(one, two)
            found = routing.paths.path(by_name[one], by_name[two])
            assert (None if found is None else tuple(host.name for host in found)) == expected
            # What is rendered comes of the view: the peer that the path begins with has the other behind it.
            rank = routing.links.rank[two]
            firsts = {peer for peer, behind in view.behind.items() if behind >> rank & 1}
            if expected is None or len(expected) == 2:
                assert not firsts
                assert bool(view.direct >> rank & 1) is (expected is not None)
            else:
                assert firsts == {routing.links.rank[expected[1]]}


@given(webs())
def test_path_back_is_the_path_there_reversed_and_parts_are_paths(draft: Draft) -> None:
    routing = routing_of(draft)
    hosts = routing.topology.hosts
    for one in hosts:
        for two in hosts:
            path = routing.paths.path(one, two)
            back = routing.paths.path(two, one)
            assert (None if path is None else path[::-1]) == back
            for start in range(len(path or ())):
                for end in range(start + 1, len(path or ()) + 1):
                    part = path[start:end]  # type: ignore[index]
                    assert routing.paths.path(part[0], part[-1]) == part


@given(webs(), st.data())
def test_a_host_that_does_not_relay_moves_no_path(draft: Draft, data: st.DataObject) -> None:
    def paths(draft: Draft, names: list[str]) -> dict[tuple[str, str], list[str] | None]:
        routing = routing_of(draft)
        found = {}
        for one in names:
            for two in names:
                path = routing.paths.path(routing.topology.by_name[one], routing.topology.by_name[two])
                found[one, two] = None if path is None else [host.name for host in path]
        return found

    names = list(draft.hosts)
    before = paths(draft, names)
    draft.hosts["a-new-one"] = {"addresses": ["10.80.0.99"], "public-key": public_key("new")}
    assert draft.rules is not None
    draft.rules += [{"link": [peer, "a-new-one"]} for peer in data.draw(st.sets(st.sampled_from(names), min_size=1))]
    assert paths(draft, names) == before


@given(drafts(max_hosts=40))
def test_links_are_the_pairs_of_the_rules(draft: Draft) -> None:
    links = routing_of(draft).links
    found = {
        frozenset((links.hosts[rank].name, links.hosts[peer].name))
        for rank, peers in enumerate(links.rules)
        for peer in peers
    }
    assert found == draft.pairs()
    assert links.silent == []
    for rank, mask in enumerate(links.masks):
        assert set(bits(mask)) == set(links.rules[rank])
