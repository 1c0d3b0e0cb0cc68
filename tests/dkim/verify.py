"""Verifies every signature of every message in a folder with dkimpy.

verify.py KEYS FOLDER: KEYS is a JSON object of names and records. One line a signature:
FILE NUMBER DOMAIN SELECTOR ok|fail REASON
"""
import json
import os
import sys

import dkim

keys = {name.encode().lower(): record.encode() for name, record in json.load(open(sys.argv[1])).items()}


def record(name, timeout=5):
    return keys.get(name.lower().rstrip(b"."))


for name in sorted(os.listdir(sys.argv[2])):
    message = open(os.path.join(sys.argv[2], name), "rb").read()
    header = message.split(b"\r\n\r\n", 1)[0]
    count = sum(line.lower().startswith(b"dkim-signature") for line in header.split(b"\r\n"))
    for number in range(count):
        verifier = dkim.DKIM(message, minkey=1024)
        try:
            verdict, reason = verifier.verify(idx=number, dnsfunc=record), ""
        except dkim.DKIMException as error:
            verdict, reason = False, str(error)
        fields = verifier.signature_fields
        domain, selector = (fields.get(tag, b"?").decode() for tag in (b"d", b"s"))
        print(name, number, domain, selector, "ok" if verdict else "fail", reason)
