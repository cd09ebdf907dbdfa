#!/usr/bin/env python3
"""Write the roots that Mozilla's list had once and has no more.

    for v in 2015.4.28 2015.11.20 2016.9.26 …; do pip download --no-deps certifi==$v; done
    python3 make.py certifi-*.whl >mozilla.txt

Each version of certifi has the list of its time. A root counts as removed on the
date of the first version given here that does not have it. The newest one given
says which are removed.
"""

import base64
import datetime
import hashlib
import re
import sys
import textwrap
import zipfile


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    lists = []
    for name in sys.argv[1:]:
        year, month, day = map(int, re.search(r"certifi-(\d+)\.(\d+)\.(\d+)", name).groups())
        with zipfile.ZipFile(name) as wheel:
            bundle = wheel.read("certifi/cacert.pem").decode()
        bodies = re.findall("-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", bundle, re.S)
        lists.append((datetime.date(year, month, day), {base64.b64decode(b) for b in bodies}))
    lists.sort(key=lambda entry: entry[0])
    removed = {}
    for (_, before), (date, after) in zip(lists, lists[1:]):
        for der in before - after:
            removed[der] = date
    rows = sorted((date, hashlib.sha256(der).hexdigest(), der)
                  for der, date in removed.items() if der not in lists[-1][1])
    dates = ", ".join(str(date) for date, _ in lists)
    text = f"""Roots of web servers that Mozilla's list had once and has no more: the date by which it was removed, and the DER in base64. Captures from before that date are judged with them. From the PyPI package certifi (MPL-2.0, as is Mozilla's list), versions of {dates}. What Mozilla did by other means than its list, such as refusing what a root issued after a date, is not known here. make.py writes this file again."""
    for line in textwrap.wrap(text, 78):
        print("#", line)
    for date, _, der in rows:
        print(date, base64.b64encode(der).decode())


main()
