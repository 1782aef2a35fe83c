#!/usr/bin/env python3
"""A second reader of millpond's stores, written from checkpoint-format.md and not from the code.

    reader.py checkpoints DIR
    reader.py state DIR OPERATOR [CHECKPOINT]
    reader.py many

print for a sound store, byte by byte, what `millpond VERB DIR --json` (of `state` with a `--limit` that is high enough)
prints. For a damaged one they agree on the exit code, on which checkpoints are damaged, and on every key and value of
sound ones; in what words damage is described is not part of the format. Exit codes are those of the tool: 0 sound, 1
damaged, 2 refused or not there. `many` reads such arguments from its input, each line a list in JSON, and prints for each a
line with the exit code, what is printed, and what is said about what is wrong.
"""

import json
import sys
from decimal import Decimal

import values
from frames import Corrupt, Incompatible
from store import Store


class NotThere(Exception):
    pass


def checkpoints(store, report):
    listed = []
    for epoch, checkpoint in store.retained():
        damage = None
        try:
            store.opened(checkpoint)
            for operator in checkpoint["operators"]:
                store.state(checkpoint, operator)
        except Corrupt as error:
            damage = str(error)
        jobs = [one for one in checkpoint["operators"] if one["value_type"] != "position"]
        listed.append(
            {
                "checkpoint": checkpoint["checkpoint"],
                "epoch": epoch,
                "batch": checkpoint["batch"],
                "time_ms": checkpoint["time_ms"],
                "keys": sum(one["keys"] for one in jobs),
                "segments": len(checkpoint["segments"]),
                "bytes": sum(one["length"] for one in checkpoint["segments"]),
                "pins": [name for name, pinned in store.pins if pinned["checkpoint"] == checkpoint["checkpoint"]],
                "damage": damage,
            }
        )
    findings = store.damage + [one["damage"] for one in listed if one["damage"]]
    report["last_durable_record"] = store.last
    report["checkpoints"] = listed
    report["pruned"] = len(store.committed) - len(listed)
    report["sound"] = not findings
    report["findings"] = findings


def state(store, report, name, number=None):
    if number is None:
        checkpoint = store.newest_sound()
    else:
        found = [one for _, one in store.retained() if one["checkpoint"] == int(number)]
        checkpoint = found[-1] if found else None
    if checkpoint is None:
        raise NotThere("there is no such checkpoint")
    operator = next((one for one in checkpoint["operators"] if one["name"] == name), None)
    if operator is None:
        raise NotThere(f"there is no operator {name}")
    entries = store.state(checkpoint, operator)
    key_type, value_type = operator["key_type"], operator["value_type"]
    schema = store.schema(checkpoint, operator)
    key_known = is_known(lambda: values.key(key_type, b""))
    value_known = schema is not None and is_known(lambda: values.value_reader(value_type, schema))
    read = values.value_reader(value_type, schema) if value_known else None
    report["checkpoint"], report["batch"] = checkpoint["checkpoint"], checkpoint["batch"]
    report["operator"] = name
    report["key_type"], report["key_type_known"] = key_type, key_known
    report["value_type"], report["value_schema"], report["value_type_known"] = value_type, schema, value_known
    report["keys"], report["matched"] = operator["keys"], len(entries)
    report["entries"] = [
        {
            "key": shown(lambda: values.key(key_type, key)) if key_known else None,
            "key_hex": key.hex(),
            "value": shown(lambda: read(value)) if value_known else None,
            "value_hex": value.hex(),
        }
        for key, value in entries
    ]
    report["sound"], report["findings"] = True, []


def is_known(make):
    try:
        make()
    except values.Unknown:
        return False
    except Corrupt:
        pass
    return True


def shown(make):
    """What is no value of its type is shown by its bytes only."""
    try:
        return make()
    except Corrupt:
        return None


def to_json(value, margin="\n"):
    """As serde_json writes it: Python differs in where numbers get an exponent, and in how that looks."""
    inner = margin + "  "
    if isinstance(value, dict) and value:
        lines = [f"{json.dumps(key, ensure_ascii=False)}: {to_json(one, inner)}" for key, one in value.items()]
        return "{" + inner + ("," + inner).join(lines) + margin + "}"
    if isinstance(value, list) and value:
        return "[" + inner + ("," + inner).join(to_json(one, inner) for one in value) + margin + "]"
    return floating(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def floating(number):
    """The shortest digits that lead back to the number, with an exponent below 1e-5 and from 1e16 on."""
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    digits = "".join(map(str, digits))
    point = len(digits) + exponent
    if number == 0:
        text = "0.0"
    elif 0 < point <= 16:
        digits = digits.ljust(point, "0")
        text = f"{digits[:point]}.{digits[point:] or '0'}"
    elif -5 < point <= 0:
        text = "0." + "0" * -point + digits
    else:
        text = digits[0] + ("." + digits[1:] if digits[1:] else "") + f"e{point - 1:+d}"
    return "-" * sign + text


VERBS = {"checkpoints": checkpoints, "state": state}


def run(arguments):
    """The exit code, what is printed, and what is said about what is wrong."""
    try:
        verb, directory, *rest = arguments
        read = VERBS[verb]
    except (ValueError, KeyError):
        return 2, "", __doc__
    try:
        store = Store(directory)
        report = {"schema": 1, "directory": directory, "job": store.job}
        read(store, report, *rest)
    except Corrupt as error:
        return 1, "", f"damaged: {error}"
    except (Incompatible, NotThere, OSError) as error:
        return 2, "", str(error)
    return 0 if report["sound"] else 1, to_json(report) + "\n", ""


def main(arguments):
    if arguments == ["many"]:
        for line in sys.stdin:
            print(json.dumps(run(json.loads(line))))
        return 0
    code, report, wrong = run(arguments)
    sys.stdout.reconfigure(encoding="utf-8")
    sys.stdout.write(report)
    if wrong:
        print(f"reader: {wrong}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
