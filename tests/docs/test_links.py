"""Links, pictures and paths that the pages name lead somewhere."""

import re

import pytest
from support.pages import PAGES, ROOT, anchors, links, read, spans

#: A path that the text names without linking to it, below the checkout or below the package.
NAMED = re.compile(r"[\w./-]+/[\w.-]+\.(?:py|toml|md|sh|yml|txt)|(?:sdft_cli|tests|docs|recipes|benchmarks)/[\w./-]*")
LARGEST_PICTURE = 200_000


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    for link in links(read(page)):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert target.exists(), f"{page}: no file {link}"
        assert target.is_relative_to(ROOT), f"{page}: {link} leaves the checkout"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{page}: no heading {link}"


@pytest.mark.parametrize("page", PAGES)
def test_paths_in_the_text_exist(page: str) -> None:
    for span in spans(read(page)):
        if NAMED.fullmatch(span):
            places = [ROOT / span, ROOT / "sdft_cli" / span, (ROOT / page).parent / span]
            assert any(place.exists() for place in places), f"{page}: no file {span}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached: set[str] = set()
    todo = ["README.md"]
    while todo:
        if (page := todo.pop()) not in reached:
            reached.add(page)
            targets = [((ROOT / page).parent / link.partition("#")[0]).resolve() for link in links(read(page))]
            todo += [t.relative_to(ROOT).as_posix() for t in targets if t.suffix == ".md" and t.is_relative_to(ROOT)]
    assert set(PAGES) - reached <= {"CHANGELOG.md"}


def test_pictures_are_small_and_name_no_machine() -> None:
    pictures = sorted((ROOT / "docs" / "img").iterdir())
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < LARGEST_PICTURE, picture.name
        assert not re.search(rb"/(?:home|root|tmp|work|Users|mnt|opt)/", picture.read_bytes()), picture.name
        assert any(picture.name in read(page) for page in PAGES), f"no page shows {picture.name}"
