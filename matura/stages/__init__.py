"""One file, one stage kind: the glue between data, learning and exams."""
