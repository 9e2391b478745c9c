"""The tables of one kind, such as those of an outbox, and the text of SQL that makes them.

Guarantee: the library and an administrator make the same tables, from one text.
"""

import re
from dataclasses import dataclass

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
SCHEMA = "CREATE SCHEMA IF NOT EXISTS {schema};\n"
FORMATS = """CREATE TABLE IF NOT EXISTS {schema}.formats (name text PRIMARY KEY, version integer NOT NULL);
"""
DONE = "INSERT INTO {schema}.formats VALUES ('{name}', {version}) ON CONFLICT DO NOTHING;\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Describes tables of one kind.

    Attributes:
        name: What messages call them.
        version: Their version, kept in the table ``formats`` of the schema.
        sql: Makes them; ``{schema}`` stands for the schema.
        advice: What to do with those of an older version.
        settings: Settings of each transaction, such as ``"enable_sort = off"``.
    """

    name: str
    version: int
    sql: str
    advice: str
    settings: tuple[str, ...] = ()

    def script(self, schema: str, *, has_schema: bool = False) -> str:
        """Return SQL that makes the tables, and the schema unless it is there.

        A role may have the right to create tables in a schema without that of creating a schema.
        """
        script = f"{'' if has_schema else SCHEMA}{FORMATS}{self.sql}{DONE}"
        return script.format(schema=quoted(schema), name=self.name, version=self.version)


def check_schema(schema: str) -> None:
    """Check the name of a schema.

    Raises:
        ValueError: It has other characters than letters, digits and underscores, or too many.
    """
    if not (isinstance(schema, str) and NAME.fullmatch(schema)):
        raise ValueError(
            f"schema: {schema!r} cannot be used; it takes up to 63 letters, digits and underscores, and begins "
            "with no digit"
        )


def quoted(schema: str) -> str:
    """Return the name of a schema as SQL has it. Upper case stays upper case."""
    return f'"{schema}"'
