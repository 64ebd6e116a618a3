"""What the Python clients of the matrix share: the arguments, and how a scenario is told.

Arguments: version, transport, port, file of authorities, prefix of topics and client ids. One line is
printed for each scenario that went as it must; anything else ends the program with an error.
"""

import ssl
import sys

VERSION, TRANSPORT, PORT, AUTHORITIES, PREFIX = sys.argv[1:6]
PORT = int(PORT)
HOST, USER, PASSWORD = "localhost", "barn", "right"
SECURE = TRANSPORT in ("tls", "wss")
PATIENCE = 60
LARGE = b"\x01" * 100_000
AWAY = [b"1", b"2", b"3", b"4", b"5"]
BOTH = [(qos, number) for number in AWAY for qos in (1, 2)]
PAIR = [("field", "north")]


def authorities():
    return ssl.create_default_context(cafile=AUTHORITIES) if SECURE else None


def expect(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: got {got!r}, not {wanted!r}")


def expect_kept(got):
    # Clients hand on QoS 2 at its PUBREL, so only what has one topic and one QoS is in order.
    for qos in (1, 2):
        payloads = [payload for topic, payload in got if topic == f"{PREFIX}/kept/{qos}"]
        expect(f"kept at QoS {qos}", payloads, AWAY)


def done(scenario):
    print(scenario, flush=True)
