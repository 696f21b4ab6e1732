# SPDX-License-Identifier: GPL-3.0-or-later
"""The secrets file: real vault encryption, real files, parallel writers."""

from __future__ import annotations

import multiprocessing
import os
import stat
import string

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.civitas.hosting.plugins.module_utils import _secrets
from ansible_collections.civitas.hosting.plugins.module_utils._secrets import SecretsError, SecretsFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CANARY = "canary-1f9c7a"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIBVAIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"


def vault(password=b"right", label="default"):
    return VaultLib([(label, VaultSecret(password))])


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "secrets.yml")


def put(path, text, vault_id=None):
    with open(path, "wb") as handle:
        handle.write(vault().encrypt(text, vault_id=vault_id))


def plain(path):
    with open(path, "rb") as handle:
        return vault().decrypt(handle.read()).decode()


def read(path):
    with open(path, "rb") as handle:
        return handle.read()


def test_makes_a_missing_value_once(path):
    store = SecretsFile(path, vault())
    assert store.get("database_password") is None
    first = store.ensure({"database_password": _secrets.random_value})
    before = read(path)
    assert before.startswith(b"$ANSIBLE_VAULT;1.1;AES256\n")
    assert first["database_password"].encode() not in before
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert SecretsFile(path, vault()).ensure({"database_password": _secrets.random_value}) == first
    assert read(path) == before
    assert sorted(os.listdir(os.path.dirname(path))) == [".secrets.yml.lock", "secrets.yml"]


def test_asks_no_factory_for_what_is_there(path):
    put(path, f'token: "{CANARY}"\n')

    def never():
        raise AssertionError("asked")

    assert SecretsFile(path, vault()).ensure({"token": never}) == {"token": CANARY}


def test_keeps_what_people_wrote(path):
    text = f"# bought in March\ntoken: '{CANARY}' # by hand\n"
    put(path, text)
    SecretsFile(path, vault()).ensure({"token": lambda: "x", "other": lambda: "generated-value"})
    assert plain(path) == text + "other: generated-value\n"


@pytest.mark.parametrize("text", ["{token: abc}", "---\ntoken: abc\n...\n", "token: |\n  abc"], ids=["flow", "ended", "block"])
def test_adds_to_any_form_of_mapping(path, text):
    put(path, text)
    store = SecretsFile(path, vault())
    store.ensure({"other": lambda: "generated-value"})
    assert store.get("token").strip() == "abc"
    assert store.get("other") == "generated-value"


@pytest.mark.parametrize("text", ["", "---\n", "# nothing yet\n", "---\n# nothing yet"])
def test_an_empty_file_is_an_empty_mapping(path, text):
    put(path, text)
    assert SecretsFile(path, vault()).ensure({"a": lambda: "generated-value"}) == {"a": "generated-value"}


def test_keeps_several_lines(path):
    SecretsFile(path, vault()).ensure({"ca_key": lambda: PEM})
    assert SecretsFile(path, vault()).get("ca_key") == PEM
    assert plain(path).startswith("---\nca_key: |\n  -----BEGIN PRIVATE KEY-----\n")


def test_takes_texts_that_are_more_than_texts(path):
    class Tagged(str):
        pass

    SecretsFile(path, vault()).ensure({Tagged("a"): lambda: Tagged("generated-value")})
    assert plain(path) == "---\na: generated-value\n"


def test_keeps_the_vault_id_and_the_mode(path):
    put(path, "a: b\n", vault_id="production")
    os.chmod(path, 0o640)
    SecretsFile(path, vault()).ensure({"c": _secrets.random_value})
    assert read(path).startswith(b"$ANSIBLE_VAULT;1.2;AES256;production\n")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640


def test_encrypts_again_with_the_secret_it_was_read_with(path):
    put(path, "a: b\n")
    both = VaultLib([("new", VaultSecret(b"other")), ("old", VaultSecret(b"right"))])
    SecretsFile(path, both, both.secrets[0]).ensure({"c": _secrets.random_value})
    assert SecretsFile(path, vault()).get("a") == "b"


def test_a_new_file_has_the_identity_that_was_asked_for(path):
    both = VaultLib([("first", VaultSecret(b"other")), ("second", VaultSecret(b"right"))])
    SecretsFile(path, both, both.secrets[1]).ensure({"c": _secrets.random_value})
    assert read(path).startswith(b"$ANSIBLE_VAULT;1.2;AES256;second\n")
    assert SecretsFile(path, vault()).get("c")


def test_replaces_the_file_behind_a_link(tmp_path, path):
    put(path, "a: b\n")
    link = tmp_path / "link.yml"
    link.symlink_to(path)
    SecretsFile(str(link), vault()).ensure({"c": lambda: "generated-value"})
    assert link.is_symlink()
    assert SecretsFile(path, vault()).get("c") == "generated-value"


def test_sees_a_change_by_others(path):
    store = SecretsFile(path, vault())
    put(path, "a: one\n")
    assert store.get("a") == "one"
    SecretsFile(path, vault()).ensure({"b": lambda: "generated-value"})
    assert store.names() == ["a", "b"]
    assert store.names_missing(["a", "c", "b", "c"]) == ["c"]


def test_decrypts_once(path, monkeypatch):
    put(path, "a: one\nb: two\n")
    opened = vault()
    calls = []
    decrypt = opened.decrypt_and_get_vault_id
    monkeypatch.setattr(opened, "decrypt_and_get_vault_id", lambda data: calls.append(1) or decrypt(data))
    for _round in range(5):
        assert (SecretsFile(path, opened).get("a"), SecretsFile(path, opened).get("b")) == ("one", "two")
    assert len(calls) == 1


def test_another_password_does_not_see_the_cache(path):
    put(path, "a: one\n")
    assert SecretsFile(path, vault()).get("a") == "one"
    with pytest.raises(SecretsError, match="cannot be decrypted"):
        SecretsFile(path, vault(b"wrong")).get("a")


def _ensure(path, barrier, queue, names):
    barrier.wait()
    queue.put(SecretsFile(path, vault()).ensure(dict.fromkeys(names, _secrets.random_value)))


def test_parallel_processes_agree(path):
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(6), context.Queue()
    names = [["shared"], ["shared", "one"], ["two", "shared"]] * 2
    processes = [context.Process(target=_ensure, args=(path, barrier, queue, each)) for each in names]
    for process in processes:
        process.start()
    answers = [queue.get(timeout=60) for dummy in processes]
    for process in processes:
        process.join()
    assert len({answer["shared"] for answer in answers}) == 1
    merged = SecretsFile(path, vault())
    assert merged.names() == ["one", "shared", "two"]
    assert all(merged.get(name) == value for answer in answers for name, value in answer.items())


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        (f"- {CANARY}\n", "holds a list and not a mapping", "name: "),
        (f"{CANARY}\n", "holds a text and not a mapping", "name: "),
        (f"token: '{CANARY}\n", "is no valid YAML", "ansible-vault edit"),
        (f"a: b\ntoken: !{CANARY} x\n", "is no valid YAML in line 2", "ansible-vault edit"),
        ("token: 1234567890\n", "'token' is a number and not a text", 'token: "..."'),
        ("token: 2026-01-01\n", "'token' is a date and not a text", "quotes"),
        (f"token: [{CANARY}]\n", "'token' is a list and not a text", "quotes"),
        ("token:\n", "'token' is empty", "remove the line"),
        ("token: '  '\n", "'token' is empty", "remove the line"),
        ("token: REPLACE_ME\n", "'token' holds a placeholder", "true value"),
        ("token: changeme\n", "'token' holds a placeholder", "true value"),
        ("token: <change me>\n", "'token' holds a placeholder", "true value"),
        ("token: xxxxxxxx\n", "'token' holds a placeholder", "true value"),
        ("token: 2026-99-99 00:00:00\n", "YAML cannot read", "quotes"),
    ],
)
def test_says_what_is_wrong_without_the_value(path, text, problem, remedy):
    put(path, text)
    before = read(path)
    with pytest.raises(SecretsError) as caught:
        SecretsFile(path, vault()).ensure({"token": _secrets.random_value})
    message = str(caught.value)
    assert problem in message and remedy in message
    assert CANARY not in message and "1234567890" not in message
    assert read(path) == before


@pytest.mark.parametrize("opened", [VaultLib(None), VaultLib([])], ids=["none", "empty"])
def test_without_a_password(path, opened):
    with pytest.raises(SecretsError, match="--vault-password-file or in ANSIBLE_VAULT_PASSWORD_FILE"):
        SecretsFile(path, opened).ensure({"a": _secrets.random_value})
    put(path, "a: b\n")
    with pytest.raises(SecretsError, match="no vault password was given"):
        SecretsFile(path, opened).get("a")


@pytest.mark.parametrize("data", [b"", b"\n \n"])
def test_an_empty_file_is_called_empty(path, data):
    with open(path, "wb") as handle:
        handle.write(data)
    with pytest.raises(SecretsError, match=r"is empty\. Remove it to have one made"):
        SecretsFile(path, vault()).names()
    assert read(path) == data


def test_an_unencrypted_file_is_refused_and_left(path):
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(f"token: {CANARY}\n")
    with pytest.raises(SecretsError, match=r"is not encrypted\. Run ansible-vault encrypt ") as caught:
        SecretsFile(path, vault()).ensure({"token": _secrets.random_value})
    assert CANARY not in str(caught.value)
    assert read(path) == f"token: {CANARY}\n".encode()


@pytest.mark.parametrize("data", [b"$ANSIBLE_VAULT;1.1;AES256\nnot hex\n", b"$ANSIBLE_VAULT;", b"$ANSIBLE_VAULT;1.1;ROT13\n00\n"])
def test_a_damaged_file_is_refused_and_left(path, data):
    with open(path, "wb") as handle:
        handle.write(data)
    with pytest.raises(SecretsError, match="cannot be decrypted"):
        SecretsFile(path, vault()).ensure({"token": _secrets.random_value})
    assert read(path) == data


def test_other_bytes_than_text(path):
    with open(path, "wb") as handle:
        handle.write(vault().encrypt(b"a: \xff\xfe\n"))
    with pytest.raises(SecretsError, match="UTF-8"):
        SecretsFile(path, vault()).get("a")


@pytest.mark.parametrize("name", [None, 1, "", "A", "1a", "a b", "a-b", "a\n", "../etc/passwd", "$(id)", "é", "a" * 129, "a: b"])
def test_bad_names(path, name):
    for call in (
        lambda store: store.get(name),
        lambda store: store.ensure({name: _secrets.random_value}),
        lambda store: store.names_missing([name]),
    ):
        with pytest.raises(SecretsError, match="is no name for a secret"):
            call(SecretsFile(path, vault()))
    assert not os.path.exists(path)


@pytest.mark.parametrize("bad", [None, 1, "", "a\nb", "a\x00b", ["x"]])
def test_bad_paths(bad):
    with pytest.raises(SecretsError, match="is no path of a secrets file"):
        SecretsFile(bad, vault())


def test_paths_that_cannot_be_used(tmp_path):
    with pytest.raises(SecretsError, match="cannot be read: Is a directory"):
        SecretsFile(str(tmp_path), vault()).get("a")
    with pytest.raises(SecretsError, match=r"cannot be written: .*No such file or directory"):
        SecretsFile(str(tmp_path / "none" / "secrets.yml"), vault()).ensure({"a": _secrets.random_value})
    # Leaving the directory is allowed to the operator, but what is there must be a secrets file.
    with pytest.raises(SecretsError, match="is not encrypted"):
        SecretsFile(str(tmp_path / ("../" * 20) / "etc" / "passwd"), vault()).ensure({"a": _secrets.random_value})


def test_a_bad_factory_writes_nothing(path):
    for value in ("", None, 5, "changeme"):
        with pytest.raises(SecretsError):
            SecretsFile(path, vault()).ensure({"a": lambda: "generated-value", "b": lambda value=value: value})
    assert not os.path.exists(path)


@pytest.mark.parametrize("length", [16, 40, 1024])
def test_random_values(length):
    values = {_secrets.random_value(length) for dummy in range(50)}
    assert len(values) == 50
    assert all(len(value) == length for value in values)
    assert set("".join(values)) <= set(string.ascii_letters + string.digits)


@pytest.mark.parametrize("length", [None, True, "40", 15, 1025, 40.0, -1])
def test_bad_lengths(length):
    with pytest.raises(SecretsError, match="the length of a secret"):
        _secrets.random_value(length)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True), st.text(st.characters(codec="utf-8"), min_size=1), max_size=5
    )
)
def test_any_text_comes_back_unchanged(tmp_path_factory, values):
    values = {name: value for name, value in values.items() if value.strip() and not _secrets._PLACEHOLDER.fullmatch(value)}
    path = str(tmp_path_factory.mktemp("any") / "secrets.yml")
    SecretsFile(path, vault()).ensure({name: (lambda value=value: value) for name, value in values.items()})
    SecretsFile(path, vault()).ensure({"zz_added": _secrets.random_value})
    fresh = SecretsFile(path, vault())
    assert {name: fresh.get(name) for name in values if name != "zz_added"} == {
        name: value for name, value in values.items() if name != "zz_added"
    }


def test_a_big_value(path):
    big = "x y\n" * 2_500_000
    assert SecretsFile(path, vault()).ensure({"big": lambda: big}) == {"big": big}


def test_changes_what_the_program_keeps_and_nothing_else(path):
    text = f"# bought in March\ntoken: '{CANARY}' # by hand\nkept: |\n  one\n\n  two\nlast: 'the last'\n"
    put(path, text)
    store = SecretsFile(path, vault())
    seen = []

    def function(values):
        seen.append(values)
        return {"kept": PEM, "fresh": "new-value"}

    assert store.change(["kept", "fresh"], function) == {"kept": PEM, "fresh": "new-value"}
    assert seen == [{"kept": "one\n\ntwo\n", "fresh": ""}]
    block = "".join(f"  {line}\n" for line in PEM.splitlines())
    assert plain(path) == f"# bought in March\ntoken: '{CANARY}' # by hand\nlast: 'the last'\nkept: |\n{block}fresh: new-value\n"
    before = read(path)
    store.change(["kept", "fresh"], lambda values: values)
    assert read(path) == before


def test_a_change_that_fails_or_empties_a_value_writes_nothing(path):
    put(path, f"token: {CANARY}\n")
    before = read(path)
    store = SecretsFile(path, vault())

    def fails(_values):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.change(["token"], fails)
    with pytest.raises(SecretsError, match="'token' is empty"):
        store.change(["token"], lambda _values: {"token": ""})
    assert read(path) == before


def count(path, times):
    store = SecretsFile(path, vault())
    for _turn in range(times):
        store.change(["counter"], lambda values: {"counter": f"{int(values['counter'] or '0') + 1}"})


def test_changes_of_parallel_processes_are_not_lost(path):
    processes = [multiprocessing.Process(target=count, args=(path, 5)) for _one in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert SecretsFile(path, vault()).get("counter") == "20"


def test_a_sibling_is_encrypted_like_the_file(path, tmp_path):
    put(path, f"token: {CANARY}\n", vault_id="production")
    both = VaultLib([("other", VaultSecret(b"other")), ("production", VaultSecret(b"right"))])
    beside = str(tmp_path / "beside.yml")
    SecretsFile(path, both, ("other", VaultSecret(b"other"))).sibling(beside).ensure({"key": lambda: "generated-value"})
    assert read(beside).startswith(b"$ANSIBLE_VAULT;1.2;AES256;production\n")
    assert plain(beside) == "---\nkey: generated-value\n"


def test_all_texts_are_given_to_who_looks_for_them(path):
    put(path, "one: a\nlist: [b, {deep: c}]\nnumber: 1234\nnothing:\nswitch: true\n")
    found = SecretsFile(path, vault()).texts()
    assert found == {"one": ["a"], "list": ["b", "c"], "number": ["1234"], "nothing": [], "switch": []}
