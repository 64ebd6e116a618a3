"""paho-mqtt over WebSocket: every version and QoS, both ways.

Arguments: the port, and a file of authorities where TLS is spoken. Prints how many pairs succeeded; anything
else is an error.
"""

import queue
import sys

import paho.mqtt.client as mqtt

VERSIONS = [mqtt.MQTTv31, mqtt.MQTTv311, mqtt.MQTTv5]
PATIENCE = 60


def connected(version, name, port, authorities):
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=version, transport="websockets")
    if authorities:
        client.tls_set(ca_certs=authorities)
    events = queue.Queue()
    client.on_connect = lambda c, u, f, reason, p: events.put(("connected", reason.is_failure))
    client.on_subscribe = lambda c, u, mid, reasons, p: events.put(("subscribed", reasons[0].is_failure))
    client.on_message = lambda c, u, message: events.put(("message", message.payload))
    client.connect("localhost", port)
    client.loop_start()
    assert events.get(timeout=PATIENCE) == ("connected", False)
    return client, events


def main():
    port, authorities = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None
    done = 0
    for version in VERSIONS:
        publisher, _ = connected(version, f"p{version}", port, authorities)
        subscriber, events = connected(version, f"s{version}", port, authorities)
        for qos in (0, 1, 2):
            topic = f"ws/{version}/{qos}"
            subscriber.subscribe(topic, qos)
            assert events.get(timeout=PATIENCE) == ("subscribed", False)
            for size in (0, 1, 200, 100_000):
                payload = bytes([qos]) * size
                publisher.publish(topic, payload, qos).wait_for_publish(PATIENCE)
                assert events.get(timeout=PATIENCE) == ("message", payload)
                done += 1
        for client in (publisher, subscriber):
            client.disconnect()
            client.loop_stop()
    print(f"{done} of 36")


main()
