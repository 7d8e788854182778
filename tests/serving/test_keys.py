"""Keys: how they are read, and what a client may send."""

import base64
import hashlib

import pytest

from softhub.errors import ConfigError
from softhub.serving.keys import Keys

KEY, ADMIN = "k" * 24, "a" * 24


def test_keys_are_read_as_hashes(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# mine\n\nsha256:{hashlib.sha256(KEY.encode()).hexdigest()}\n")
    found = Keys.read(file, ADMIN)
    assert found.accept(f"Bearer {KEY}") and found.accept(f"bearer {ADMIN}")
    assert not found.accept(None) and not found.accept("Bearer k")
    for content, message in [(KEY, "sha256sum"), ("", "has no key")]:
        file.write_text(content)
        with pytest.raises(ConfigError, match=message):
            Keys.read(file)
    with pytest.raises(ConfigError, match="Cannot read"):
        Keys.read(tmp_path / "none")
    with pytest.raises(ConfigError, match="at least 16"):
        Keys.read(None, "short")


@pytest.mark.parametrize("key", ["schlüssel-für-alle-0123", "clef-de-la-cité-voilà", "鍵" * 16])
def test_a_key_beyond_ascii_is_accepted_as_its_bytes_in_utf_8(key, serve):
    server = serve(keys=Keys.read(None, key))
    basic = base64.b64encode(f"me:{key}".encode())
    for authorization in (b"Bearer " + key.encode(), b"Basic " + basic):
        answer = server.http.get("/v1/models", headers={b"Authorization": authorization})
        assert answer.status_code == 200
    wrong = {b"Authorization": b"Bearer " + key.encode()[:-1]}
    assert server.http.get("/v1/models", headers=wrong).status_code == 401
