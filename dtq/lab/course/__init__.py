"""The course itself: its notebooks, exercises and checks, and source code on a page."""
