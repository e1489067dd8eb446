"""Tokens beside a vocabulary: special ones, and those that textual inversion has added.

Source: ``PreTrainedTokenizerBase._from_pretrained`` and ``TokenizersBackend.__init__`` of transformers 5.23:
which file counts when several speak of the same token, and in which order the tokens are added, since their
ids follow from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conversions.tokenizers.files import ADDED_TOKENS, SPECIAL_TOKENS, WHOLE, TokenizerFiles

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

# Source: PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES, in this order.
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FIELDS = frozenset({"content", "single_word", "lstrip", "rstrip", "normalized", "special"})


@dataclass(frozen=True, kw_only=True)
class AddedTokens:
    """The tokens beside a vocabulary.

    Attributes:
        roles: The text of the token that has a role, by role: ``"pad_token"`` ...
        tokens: All to add, in the order in which they get their ids.
    """

    roles: Mapping[str, str]
    tokens: tuple[AddedToken, ...]


def read_added_tokens(files: TokenizerFiles, defaults: Mapping[str, str]) -> AddedTokens:
    """Collect the tokens beside a vocabulary from all files that may speak of them.

    Args:
        files: The tokenizer's files.
        defaults: The tokens that the tokenizer's class has where no file names one, by role.

    Raises:
        ConversionError: A file describes a token in a way that cannot be understood.
    """
    from tokenizers import AddedToken

    config = dict(files.config)
    if "additional_special_tokens" in config and not config.get("extra_special_tokens"):
        config["extra_special_tokens"] = config.pop("additional_special_tokens")
    declared: dict[int, AddedToken] = {}
    if "added_tokens_decoder" in config:
        for number, described in _object(files, config["added_tokens_decoder"]).items():
            declared[_number(files, number)] = _token(files, described)
    else:
        config = _with_map(files, config)
        special = {_text(files, config[role]) for role in _ROLES if config.get(role)}
        special |= {_text(files, each) for each in _list(files, config.get("extra_special_tokens"))}
        for content, number in files.json(ADDED_TOKENS).items():
            is_special = content in special
            declared[_number(files, number)] = AddedToken(
                content, normalized=not is_special, special=is_special
            )
        for described in _list(files, files.json(WHOLE).get("added_tokens")):
            fields = _object(files, described)
            declared[_number(files, fields.get("id"))] = _token(files, fields)
        if "additional_special_tokens" in config and "extra_special_tokens" not in config:
            config["extra_special_tokens"] = config.pop("additional_special_tokens")
    by_content = {token.content: token for token in declared.values()}

    named: dict[str, str | AddedToken] = {}
    extra = config.get("extra_special_tokens")
    more = [role for role in config if role.endswith("_token") and role not in _ROLES]
    for role in (*_ROLES, *more):
        value = config.get(role, defaults.get(role))
        if value is None or (role in more and not isinstance(value, str | dict)):
            continue
        named[role] = by_content.get(_text(files, value)) or _special(files, value)
    if isinstance(extra, dict):
        named |= {role: _special(files, value) for role, value in extra.items()}

    tokens: list[str | AddedToken] = [declared[number] for number in sorted(declared)]
    known = {str(token) for token in tokens}
    tokens += [value for value in named.values() if str(value) not in known]
    if not isinstance(extra, dict):
        tokens += [_special(files, each) for each in _list(files, extra) if _text(files, each) not in known]
    names = {str(value) for value in named.values()}
    return AddedTokens(
        roles={role: str(value) for role, value in named.items()},
        tokens=tuple(_made(token, names) for token in tokens),
    )


def _with_map(files: TokenizerFiles, config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with what ``special_tokens_map.json`` says; lists of both are joined."""
    known, more = config.get("extra_special_tokens"), files.json(SPECIAL_TOKENS)
    both = more.get("extra_special_tokens")
    if isinstance(known, list) and isinstance(both, list):
        more["extra_special_tokens"] = [*known, *(each for each in both if each not in known)]
    return {**config, **more}


def ids_of_roles(files: TokenizerFiles, backend: Backend, added: AddedTokens, *roles: str) -> tuple[int, ...]:
    """Return the ids of the tokens that have the given roles.

    Raises:
        ConversionError: ``tokenizer.broken``; a role has no token, or the vocabulary lacks it.
    """
    ids = []
    for role in roles:
        text = added.roles.get(role)
        if text is None:
            raise files.broken(f"it has no {role}")
        number = backend.token_to_id(text)
        if number is None:
            raise files.broken(f"it does not know its own {role} {text!r}")
        ids.append(int(number))
    return tuple(ids)


def _made(token: str | AddedToken, names: set[str]) -> AddedToken:
    from tokenizers import AddedToken

    if isinstance(token, str):
        return AddedToken(token, special=True)
    if token.content in names:
        token.special = True
    return token


def _special(files: TokenizerFiles, value: Any) -> str | AddedToken:
    """Read a special token: its text, or an object that describes it."""
    return value if isinstance(value, str) else _token(files, value)


def _token(files: TokenizerFiles, value: Any) -> AddedToken:
    from tokenizers import AddedToken

    described = _object(files, value)
    fields = {name: described[name] for name in described if name in _FIELDS}
    flags = all(isinstance(flag, bool) for name, flag in fields.items() if name != "content")
    if not isinstance(fields.get("content"), str) or not flags:
        raise files.broken(f"it describes a token as {value!r:.80}")
    return AddedToken(**fields)


def _text(files: TokenizerFiles, value: Any) -> str:
    return value if isinstance(value, str) else _token(files, value).content


def _object(files: TokenizerFiles, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise files.broken(f"it describes its added tokens as {value!r:.80}")
    return value


def _list(files: TokenizerFiles, value: Any) -> list[Any]:
    if value is None or isinstance(value, dict):
        return []
    if not isinstance(value, list):
        raise files.broken(f"it lists its added tokens as {value!r:.80}")
    return value


def _number(files: TokenizerFiles, value: Any) -> int:
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) < 10):
        raise files.broken(f"an added token has the id {value!r:.80}")
    return int(text)
