"""A check that never fails checks nothing: what `modules.py` must find, and what it must not."""

import sys

sys.dont_write_bytecode = True

import tempfile
import unittest
from pathlib import Path

import modules


def circles(**sources):
    """The circles of a crate of these files, where `a__b` is `a/b.rs`."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in sources.items():
            file = Path(folder, *name.split("__")).with_suffix(".rs")
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        return modules.circles(modules.Crate(Path(folder, "lib.rs")).edges())


class Circles(unittest.TestCase):
    def test_one_direction_is_no_circle(self):
        found = circles(lib="mod a;\nmod b;\npub use a::f;", a="use crate::b::g;", b="fn g() {}")
        self.assertEqual(found, [])

    def test_two_that_name_each_other_are_one(self):
        found = circles(lib="mod a; mod b;", a="use crate::b::g;", b="fn g() { super::a::f() }")
        self.assertEqual(found, [[("a",), ("b",)]])

    def test_something_exported_counts_where_it_is_defined(self):
        lib = "mod a; mod b;\npub use b::{self, g as h};"
        self.assertEqual(circles(lib=lib, a="use crate::h;", b="fn g() {}"), [])
        self.assertEqual(circles(lib=lib, a="use crate::h;", b="use crate::a;"), [[("a",), ("b",)]])

    def test_a_child_that_uses_what_its_parent_defines_is_one(self):
        found = circles(lib="mod a;", a="mod c;\npub use c::F;\npub struct G;", a__c="use super::G;")
        self.assertEqual(found, [[("a",), ("a", "c")]])
        sibling = circles(lib="mod a;", a="mod c; mod d; use d::F;", a__c="use super::d::F;", a__d="")
        self.assertEqual(sibling, [])

    def test_tests_comments_and_texts_do_not_count(self):
        back = (
            "// use crate::a::f;\n"
            'const TEXT: &str = "use crate::a::f;";\n'
            "#[cfg(test)]\nmod tests { use crate::a::f; fn t() { {} } }\n"
        )
        self.assertEqual(circles(lib="mod a; mod b;", a="use crate::b::g;", b=back), [])


unittest.main()
