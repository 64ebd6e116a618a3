"""paho-mqtt against access rules, 3.1.1 and 5: what anna may read arrives, what she may not write is refused.

Exits 1 with a word on stderr where something else happens.
"""

import sys
import threading

import paho.mqtt.client as mqtt

PORT = int(sys.argv[1])


def client(name, user, password, version):
    made = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=version)
    made.username_pw_set(user, password)
    opened = threading.Event()
    made.on_connect = lambda *_: opened.set()
    made.connect("127.0.0.1", PORT, keepalive=60)
    made.loop_start()
    assert opened.wait(60), "CONNACK"
    return made


def publish(made, topic):
    """The reason code of the PUBACK."""
    codes, told = [], threading.Event()

    def on_publish(_client, _data, _mid, reason, _properties):
        codes.append(reason.value)
        told.set()

    made.on_publish = on_publish
    made.publish(topic, b"hello", 1)
    assert told.wait(60), "PUBACK"
    return codes[0]


for version in (mqtt.MQTTv311, mqtt.MQTTv5):
    got, ready, last, granted = [], threading.Event(), threading.Event(), []
    anna = client(f"anna-{version}", "anna", "ebb", version)

    def on_message(_client, _data, message):
        got.append(message.topic)
        if message.topic == "a/last":
            last.set()

    def on_subscribe(_client, _data, _mid, reasons, _properties):
        granted.extend(reason.value for reason in reasons)
        ready.set()

    anna.on_message, anna.on_subscribe = on_message, on_subscribe
    anna.subscribe([("#", 1), ("b/#", 1)])
    assert ready.wait(60), "SUBACK"
    refused = 0x87 if version == mqtt.MQTTv5 else 0x80
    assert granted == [1, refused], granted
    boss = client(f"boss-{version}", "boss", "flow", version)
    for topic in ("a/1", "b/1", "a/last"):
        publish(boss, topic)
    assert last.wait(60), "a/last"
    assert got == ["a/1", "a/last"], got
    assert publish(anna, "a/1") == (0x87 if version == mqtt.MQTTv5 else 0)
    for each in (anna, boss):
        each.disconnect()
        each.loop_stop()
