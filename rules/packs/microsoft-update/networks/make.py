#!/usr/bin/env python3
"""Makes microsoft.txt, the networks that Microsoft Corporation announces.

    npm pack @ip-location-db/asn
    ./make.py ip-location-db-asn-*.tgz >microsoft.txt

Look at what has changed before you keep it (git diff): a network that is in the
list is taken for Microsoft's own.
"""

import csv
import io
import ipaddress
import json
import sys
import tarfile

# The organisation as the data names it. Subsidiaries, which have other names, are
# left out.
ORGANISATION = "Microsoft Corporation"


def main(archive):
    with tarfile.open(archive) as tar:
        def text(name):
            return io.TextIOWrapper(tar.extractfile("package/" + name), encoding="utf-8", newline="")

        version = json.load(text("package.json"))["version"]
        networks, systems = [], set()
        for name in "asn-ipv4.csv", "asn-ipv6.csv":
            own = []
            for first, last, number, organisation in csv.reader(text(name)):
                if organisation == ORGANISATION:
                    own += ipaddress.summarize_address_range(ipaddress.ip_address(first), ipaddress.ip_address(last))
                    systems.add(int(number))
            networks += ipaddress.collapse_addresses(own)
    stamp = version.split(".")[-1]  # YYYYMMDDHH
    print(f"# Networks announced by {ORGANISATION}, {stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}, made by make.py")
    print(f"# from the npm package @ip-location-db/asn {version}:")
    print(f"# {len(networks)} networks of AS " + ", ".join(map(str, sorted(systems))) + ".")
    print("# Data by routeviews.org and db-ip.com (https://db-ip.com), each under CC BY 4.0")
    print("# (https://creativecommons.org/licenses/by/4.0/), merged by ip-location-db; of it, one")
    print("# organisation was taken, and its ranges were made into networks.")
    for network in networks:
        print(network)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
