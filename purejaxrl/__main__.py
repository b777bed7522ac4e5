"""`python -m purejaxrl`."""

from purejaxrl.cli import entry

if __name__ == "__main__":
    entry()
