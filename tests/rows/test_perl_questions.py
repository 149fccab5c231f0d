"""FAQ headings become questions, how an answer opens is expected, and its passage is gold. The package is made here."""

import io
import lzma
import tarfile
from pathlib import Path

import pytest

from leastwise.errors import BadInput
from leastwise.rows import expected_answers
from leastwise.rows.tables import Tables
from leastwise.rows.use_case_file import load
from use_cases import build_perl_questions
from use_cases.build_perl_questions import build, main, opening
from use_cases.pod_passages import passages, plain, sections

FAQ = """=head1 NAME

perlfaq4 - Data Manipulation

=head1 Data: Numbers

=head2 Does Perl have a round() function?
X<round> X<POSIX>

(contributed by brian d foy)

Remember that C<int()> merely truncates toward 0. For rounding to a
certain number of digits, C<sprintf()> is the easiest route:

    printf("%.3f", 3.1415926535);   # prints 3.142

=for comment not for readers

The L<POSIX> module implements C<ceil()>; see L<perlop/"Floating-point Arithmetic">.

=head2 How do I dereference a method?

Call it with C<< $object->method >>, as in B<I<any> class>. E<lt>HE<gt>

=head2 Which ways are there?

=over 4

=item *

By name, which is the one that most people know and use.

=back

=begin html

<p>left out</p>

=end html
"""
TOC = "=head1 NAME\n\nperltoc\n\nDoes Perl have a round() function? And everything else that is in the manual.\n"
OTHER = "=head1 DESCRIPTION\n\n" + "\n\n".join(
    f"Paragraph {n} of the manual says something about topic number {n}." for n in range(40)
)


def package(path: Path, pods: dict[str, str], data: str = "data.tar.xz") -> Path:
    """A Debian package: an ar archive of three members, the last a tar of the files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as files:
        for name, pod in pods.items():
            info = tarfile.TarInfo(f"./usr/share/perl/5.36.0/pod/{name}.pod")
            info.size = len(pod.encode())
            files.addfile(info, io.BytesIO(pod.encode()))
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", data: lzma.compress(packed.getvalue())}
    written = b"!<arch>\n"
    for name, content in members.items():
        written += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
            + content
            + b"\n" * (len(content) % 2)
        )
    path.write_bytes(written)
    return path


@pytest.fixture
def deb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(build_perl_questions, "SIZES", {"test": 1, "gate": 1, "dev": 1})
    return package(tmp_path / "perl-doc_1_all.deb", {"perlfaq4": FAQ, "perltoc": TOC, "perlother": OTHER})


def test_a_heading_is_a_question_its_answers_opening_expected_and_that_passage_gold(deb: Path) -> None:
    tables = build(deb)
    texts = dict(zip(tables["documents"]["id"], tables["documents"]["text"], strict=True))
    rows = {row["text"]: row for name in ("test", "gate", "dev") for row in tables[name].to_dict("records")}
    row = rows["Does Perl have a round() function?"]
    assert row["label"][0].startswith("Remember that int() merely truncates toward 0.") and row["label"][0].endswith(
        "# prints 3.142"
    )
    (gold,) = row["gold"]
    assert row["label"][0] in texts[gold] and texts[gold] == row["label"][1]
    assert "ceil(); see Floating-point Arithmetic in perlop." in texts[gold] and "comment" not in texts[gold]
    assert rows["How do I dereference a method?"]["label"] == ["Call it with $object->method, as in any class. <H>"]
    assert rows["Which ways are there?"]["label"] == ["* By name, which is the one that most people know and use."]


def test_no_passage_gives_a_question_away_unless_headings_are_asked_for(deb: Path) -> None:
    assert not build(deb)["documents"]["text"].str.contains("Does Perl have a round").any(), (
        "neither a heading nor a table of contents"
    )
    assert build(deb, headings=True)["documents"]["text"].str.contains("Does Perl have a round").any()


def test_a_folder_of_pods_builds_the_same_as_the_package_and_the_same_each_time(
    deb: Path, tmp_path: Path, home: Path
) -> None:
    pods = tmp_path / "unpacked" / "pod"
    pods.mkdir(parents=True)
    for name, pod in {"perlfaq4": FAQ, "perltoc": TOC, "perlother": OTHER}.items():
        (pods / f"{name}.pod").write_text(pod)
    one, other = build(deb), build(tmp_path / "unpacked")
    assert all(one[name].equals(other[name]) for name in one)
    assert main([str(deb)]) == 0 and (home / "data" / "perl-questions" / "documents.parquet").exists()


def test_passages_are_as_few_as_their_bound_allows_and_lose_no_word() -> None:
    (section,) = [each for each in sections("perlother", OTHER) if each.heading == "DESCRIPTION"]
    made = passages(section.paragraphs, 300)
    assert all(len(text) <= 300 for text in made) and "\n\n".join(made) == "\n\n".join(section.paragraphs)
    long = passages(["One sentence. " * 50 + "An end.", "    x = 1\n" * 40], 200)
    assert (
        all(len(text) <= 200 for text in long)
        and " ".join(long).split() == ("One sentence. " * 50 + "An end. " + "x = 1 " * 40).split()
    )


@pytest.mark.parametrize(
    ("pod", "text"),
    [
        (
            "See L<perlfunc/splice> and L<the site|http://a.b/>, L<http://c.d/>.",
            "See splice in perlfunc and the site, http://c.d/.",
        ),
        ("B<bold C<< a <=> b >> I<x>>X<gone>", "bold a <=> b x"),
        ("E<gt>E<eacute>E<0x41>E<65>", ">éAA"),
    ],
)
def test_formatting_codes_leave_their_words(pod: str, text: str) -> None:
    assert plain(pod) == text


def test_an_opening_passes_over_a_credit_and_takes_in_the_code_it_announces() -> None:
    assert opening(["(contributed by a b)", "Use this:", "    a", "    b", "More."]) == "Use this:\n\n    a\n\n    b"
    assert opening(["Plain.", "More."]) == "Plain." and opening([]) == ""


def test_what_is_no_such_package_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "notes.deb").write_text("no archive")
    with pytest.raises(BadInput, match=r"notes\.deb: is no Debian package"):
        build(tmp_path / "notes.deb")
    with pytest.raises(BadInput, match="does not exist"):
        build(tmp_path / "none.deb")
    with pytest.raises(BadInput, match=r"zst cannot be unpacked here; run `dpkg-deb -x"):
        build(package(tmp_path / "new.deb", {}, "data.tar.zst"))
    with pytest.raises(BadInput, match="holds no questions"):
        build(package(tmp_path / "other.deb", {"perlother": OTHER}))


def test_without_apt_the_builder_says_what_to_give_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="give its path, or the folder of an installed perl-doc"):
        main([])


def test_the_rows_are_what_the_shipped_use_case_reads(deb: Path, home: Path) -> None:
    main([str(deb)])
    use_case = load("perl-questions")
    tables = Tables(use_case)
    assert len(tables.need("documents")) > 3 and expected_answers.expected_texts(
        use_case.task, tables.need("gate")["label"], "gate"
    )
