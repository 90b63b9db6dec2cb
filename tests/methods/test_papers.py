"""Every row can be cited, and what is printed is BibTeX."""

import re

import pytest

from quatrain.methods import METHODS
from quatrain.methods.papers import PAPERS, bibtex

FIELDS = {
    "article": {"journal"},
    "inproceedings": {"booktitle"},
    "misc": set(),
}
"""What each type of entry must have besides title, author and year."""


def parsed(entry: str) -> tuple[str, str, dict[str, str]]:
    """(type, key, fields) of a BibTeX entry in which each field stands on a line of its own."""
    found = re.fullmatch(r"@(\w+)\{([^\s{},]+),\n((?:  \w+ = \{.*\},\n)+)\}", entry)
    assert found, entry
    pairs = re.findall(r"^  (\w+) = \{(.*)\},$", found[3], re.MULTILINE)
    assert len(dict(pairs)) == len(pairs), "a field stands twice"
    return found[1], found[2], dict(pairs)


def nested_well(value: str) -> bool:
    depth = 0
    for character in re.sub(r"\\.", "", value):
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0


def test_the_papers_are_those_of_the_rows():
    assert set(PAPERS) == {row.paper for row in METHODS.values()}


def test_keys_are_of_one_paper_each():
    keys = [paper.key for paper in PAPERS.values()]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("paper", PAPERS)
def test_an_entry_is_bibtex(paper: str):
    kind, key, values = parsed(bibtex(paper))
    assert re.fullmatch(r"[a-z]+\d{4}[a-z]+", key)
    assert {"title", "author", "year"} | FIELDS[kind] <= set(values)
    assert all(nested_well(value) and value == value.strip() and "  " not in value for value in values.values())
    assert 1990 <= int(values["year"]) <= 2100
    assert re.search(r"\b(eprint|doi|url)\b", " ".join(values)), "nobody could find it"
    assert "".join(values.values()).isascii(), "accents are written in TeX, so that every BibTeX reads them"


@pytest.mark.parametrize("paper", PAPERS)
def test_names_are_family_first(paper: str):
    for name in PAPERS[paper].author.removesuffix(" and others").split(" and "):
        assert re.fullmatch(r"\{[^{},]+\}|[^\s,][^,]*, [^\s,][^,]*", name), name


@pytest.mark.parametrize("paper", PAPERS)
def test_capitals_are_kept(paper: str):
    """Styles make all letters of a title small but its first, those in braces, and those after a colon."""
    bare = re.sub(r"\{[^{}]*\}", "", PAPERS[paper].title)
    assert not re.findall(r"\b\w*[a-z0-9][A-Z]\w*|\b[A-Z]{2,}\b", bare), "put braces around it"


def test_it_reads_as_it_is_cited_elsewhere():
    assert bibtex("arXiv:2402.03300").splitlines() == [
        "@misc{shao2024deepseekmath,",
        "  title = {{DeepSeekMath}: Pushing the Limits of Mathematical Reasoning in Open Language Models},",
        "  author = {Shao, Zhihong and Wang, Peiyi and Zhu, Qihao and Xu, Runxin and Song, Junxiao and Bi, Xiao and Zhang, "
        "Haowei and Zhang, Mingchuan and Li, Y. K. and Wu, Y. and Guo, Daya},",
        "  year = {2024},",
        "  eprint = {2402.03300},",
        "  archivePrefix = {arXiv},",
        "}",
    ]
    assert bibtex("doi:10.1007/BF00992696").startswith("@article{williams1992simple,")
    assert "  doi = {10.1007/BF00992696},\n" in bibtex("doi:10.1007/BF00992696")
    assert "  url = {https://fengyao.notion.site/off-policy-rl},\n" in bibtex("https://fengyao.notion.site/off-policy-rl")
