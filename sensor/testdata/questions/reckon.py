#!/usr/bin/env python3
"""Answer the questions of TestQuestions without oddcert certs.

    reckon.py RECORDS EXPECTED

RECORDS are those of "oddcert replay --json" over the captures of the public corpus,
EXPECTED is its expected.json, which was made with tshark, Suricata and Zeek. What a
certificate says is read by openssl. The answer is one JSON object.
"""
import base64
import collections
import datetime
import json
import subprocess
import sys

handshakes, alerts, der = [], [], {}
with open(sys.argv[1], encoding="utf-8") as f:
    for line in f:
        record = json.loads(line)
        dataset = record["event"]["dataset"]
        if dataset == "oddcert.handshake":
            handshakes.append(record)
        elif dataset == "oddcert.alert":
            alerts.append(record)
        elif dataset == "oddcert.certificate":
            c = record["oddcert"]["certificate"]
            der[c["hash"]["sha256"]] = base64.b64decode(c["der"])
with open(sys.argv[2], encoding="utf-8") as f:
    expected = json.load(f)


def when(text):
    return datetime.datetime.fromisoformat(text[:26].rstrip("Z")).replace(tzinfo=datetime.timezone.utc)


def server(record):
    to = record["destination"]
    if "ip" not in to:
        return to["mac"].replace("-", ":").lower() + "/eapol"
    ip = "[%s]" % to["ip"] if ":" in to["ip"] else to["ip"]
    return "%s:%d/%s" % (ip, to["port"], record["network"]["transport"])


def leaf(record):
    chain = record["oddcert"].get("chain")
    if record["oddcert"]["certificates"] != "extracted" or not chain:
        return None
    if isinstance(chain, list):  # complete, as in alerts
        return chain[0].get("hash", {}).get("sha256")
    return chain["hash"]["sha256"][0]


def openssl(data):
    """Subject, issuer and end of a certificate, None where openssl does not read it."""
    done = subprocess.run(["openssl", "x509", "-inform", "DER", "-noout", "-subject", "-issuer", "-enddate", "-nameopt", "RFC2253"],
                          input=data, capture_output=True)
    if done.returncode != 0:
        return None
    fields = dict(line.split("=", 1) for line in done.stdout.decode("utf-8", "replace").splitlines())
    end = datetime.datetime.strptime(fields["notAfter"], "%b %d %H:%M:%S %Y GMT").replace(tzinfo=datetime.timezone.utc)
    return fields["subject"], fields["issuer"], end


last = {}
shown = collections.defaultdict(lambda: collections.Counter())
for h in handshakes:
    if leaf(h):
        last[leaf(h)] = max(last.get(leaf(h), when(h["@timestamp"])), when(h["@timestamp"]))
        shown[leaf(h)][server(h)] += 1
read = {digest: openssl(der[digest]) for digest in last}

servers, clients = collections.defaultdict(set), collections.defaultdict(set)
for capture in expected.values():
    for c in capture["server"]:
        if c["position"] == 0 and not c.get("partial_message") and not c.get("exotic"):
            servers[c["sha256"].upper()].add((c["server"], c["transport"]))
            clients[c["sha256"].upper()].add(c["client"].rsplit(":", 1)[0].strip("[]"))
ranking = sorted(((len(s), digest) for digest, s in servers.items()), reverse=True)


def side(name):
    """The certificates in the captures of a project, all that there are."""
    return {c["sha256"].upper() for path, capture in expected.items() if path.startswith(name + "/") for c in capture["server"] + capture["client"]}


json.dump({
    "expired": sorted(d for d, c in read.items() if c and c[2] < last[d]),
    "most_servers": ranking[0][1],
    "self_signed": sorted(d for d, c in read.items() if c and c[0] == c[1]),
    "clients": {digest: sorted(clients[digest]) for _, digest in ranking[:5]},
    "starttls": sorted({leaf(h) for h in handshakes if leaf(h) and h["oddcert"]["carrier"].startswith("starttls")}),
    "flagged": sorted({leaf(a) for a in alerts if leaf(a)}),
    "only_a": sorted(side("FoxIO-LLC+ja4") - side("seladb+PcapPlusPlus")),
    "only_b": sorted(side("seladb+PcapPlusPlus") - side("FoxIO-LLC+ja4")),
    "shown": {digest: shown[digest] for _, digest in ranking[:5]},
}, sys.stdout)
