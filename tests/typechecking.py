"""beartype as the suite uses it: an int is a float, as PEP 484 has it."""

from beartype import BeartypeConf, beartype

# What users call: values of a wrong type must meet the package's own checks.
LEFT_OUT = {
    ("purejaxrl.api", "train"),
    ("purejaxrl.api", "sweep"),
    ("purejaxrl.api", "tune"),
    ("purejaxrl.api", "resume"),
    ("purejaxrl.analysis.evaluation", "evaluate"),
    ("purejaxrl.analysis.export", "export"),
    ("purejaxrl.analysis.result", "load"),
}
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def typechecked(function):
    return function if (function.__module__, function.__qualname__) in LEFT_OUT else checked(function)
