"""paho-mqtt against the gateway: each version, each QoS of publisher and subscriber, one message each.

Prints how many of the 27 pairs went through; exits 1 if one did not.
"""

import sys
import threading

import paho.mqtt.client as mqtt

PORT = int(sys.argv[1])
VERSIONS = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}


def client(name, version):
    made = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=version)
    made.connect("127.0.0.1", PORT, keepalive=60)
    made.loop_start()
    return made


def through(name, version, published, subscribed):
    topic = f"paho/{name}/{published}/{subscribed}"
    got, ready, arrived = [], threading.Event(), threading.Event()
    subscriber = client(f"sub-{name}-{published}-{subscribed}", version)
    subscriber.on_subscribe = lambda *_: ready.set()

    def on_message(_client, _data, message):
        got.append((message.topic, message.payload, message.qos))
        arrived.set()

    subscriber.on_message = on_message
    subscriber.subscribe(topic, subscribed)
    ready.wait(60)
    publisher = client(f"pub-{name}-{published}-{subscribed}", version)
    publisher.publish(topic, b"hello", published).wait_for_publish(60)
    arrived.wait(60)
    for each in (publisher, subscriber):
        each.disconnect()
        each.loop_stop()
    return got == [(topic, b"hello", min(published, subscribed))]


results = [
    through(name.replace(".", ""), version, published, subscribed)
    for name, version in VERSIONS.items()
    for published in (0, 1, 2)
    for subscribed in (0, 1, 2)
]
print(f"{sum(results)} of {len(results)} pairs of version and QoS")
sys.exit(0 if all(results) else 1)
