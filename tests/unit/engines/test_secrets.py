"""What is derived from the one secret?"""

from __future__ import annotations

import re

from engines.secrets import cache_salt, internal_token


def test_every_tenant_has_a_salt_of_its_own_that_vllm_takes() -> None:
    salts = {cache_salt(b"secret", tenant) for tenant in ("a", "b", "c")}
    assert len(salts) == 3
    assert all(re.fullmatch("[0-9a-f]{64}", salt) for salt in salts)


def test_the_token_is_no_tenants_salt_and_another_secret_gives_another() -> None:
    assert internal_token(b"one") != internal_token(b"two")
    assert internal_token(b"secret") != cache_salt(b"secret", "internal-token")
