"""The ladder of `portdet align`: levels from single ops to whole trainings, each with gates that know their own noise.

A level yields one `Outcome` a backend, kept as a file in the run's folder, so that a stopped ladder goes on where it
was. Outcomes are plain data: the page, align.json and junit.xml are made from them.
"""
