"""paho-mqtt through one cell of the matrix; see cell.py for the arguments."""

import queue
import socket

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from cell import AUTHORITIES, BOTH, HOST, LARGE, PAIR, PASSWORD, PATIENCE, PORT, PREFIX, SECURE, TRANSPORT, USER
from cell import VERSION, done, expect, expect_kept

LEVEL = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}[VERSION]
FIVE = VERSION == "5"


class Client:
    def __init__(self, name, kept=False, will=None, password=PASSWORD):
        start = {} if FIVE else {"clean_session": not kept}
        transport = "websockets" if TRANSPORT in ("ws", "wss") else "tcp"
        name = f"{name}-{PREFIX}"
        self.mqtt = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=LEVEL, transport=transport, **start
        )
        self.mqtt.username_pw_set(USER, password)
        if SECURE:
            self.mqtt.tls_set(ca_certs=AUTHORITIES)
        if will:
            self.mqtt.will_set(will, b"gone", 1)
        self.told, self.messages = queue.Queue(), queue.Queue()
        self.mqtt.on_connect = lambda c, u, flags, reason, p: self.told.put((flags.session_present, reason))
        self.mqtt.on_subscribe = lambda c, u, mid, reasons, p: self.told.put(reasons[0].value)
        self.mqtt.on_message = lambda c, u, message: self.messages.put(message)
        options = {}
        if FIVE:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600 if kept else 0
            options = {"clean_start": not kept, "properties": properties}
        self.mqtt.connect(HOST, PORT, keepalive=60, **options)
        self.mqtt.loop_start()
        self.present, self.reason = self.told.get(timeout=PATIENCE)

    def subscribe(self, topic, qos, identifier=None):
        if identifier:
            properties = Properties(PacketTypes.SUBSCRIBE)
            properties.SubscriptionIdentifier = identifier
            self.mqtt.subscribe(topic, options=SubscribeOptions(qos=qos), properties=properties)
        else:
            self.mqtt.subscribe(topic, qos)
        expect("granted", self.told.get(timeout=PATIENCE), qos)

    def publish(self, topic, payload, qos, retain=False, properties=None):
        self.mqtt.publish(topic, payload, qos, retain, properties).wait_for_publish(PATIENCE)

    def message(self):
        return self.messages.get(timeout=PATIENCE)

    def leave(self):
        self.mqtt.disconnect()
        self.mqtt.loop_stop()

    def cut(self):
        self.mqtt.on_disconnect = lambda *_: self.mqtt.disconnect()
        kernel = self.mqtt.socket()
        # A WebSocket hides the socket that it wraps.
        getattr(kernel, "_socket", kernel).shutdown(socket.SHUT_RDWR)
        self.mqtt.loop_stop()


def login(_):
    refused = Client("wrong", password="wrong")
    expect("refused", refused.reason.is_failure, True)
    refused.leave()


def pairs(other):
    for subscribed in (0, 1, 2):
        client = Client(f"pairs{subscribed}")
        client.subscribe(f"{PREFIX}/pairs/+/{subscribed}", subscribed)
        for published in (0, 1, 2):
            for payload in (b"", b"hello", LARGE):
                topic = f"{PREFIX}/pairs/{published}/{subscribed}"
                other.publish(topic, payload, published)
                got = client.message()
                wanted = (topic, payload, min(published, subscribed), False)
                expect("pair", (got.topic, got.payload, got.qos, got.retain), wanted)
        client.leave()


def retained(other):
    other.publish(f"{PREFIX}/retained/a", b"kept", 1, retain=True)
    client = Client("late")
    client.subscribe(f"{PREFIX}/retained/#", 1)
    got = client.message()
    expect("retained", (got.topic, got.payload, got.retain), (f"{PREFIX}/retained/a", b"kept", True))
    client.leave()


def will(other):
    other.subscribe(f"{PREFIX}/will/+", 1)
    Client("dying", will=f"{PREFIX}/will/x").cut()
    expect("will", other.message().payload, b"gone")


def kept(other):
    client = Client("keeper", kept=True)
    expect("present at first", client.present, False)
    client.subscribe(f"{PREFIX}/kept/+", 2)
    client.leave()
    for qos, number in BOTH:
        other.publish(f"{PREFIX}/kept/{qos}", number, qos)
    again = Client("keeper", kept=True)
    # 3.1 has no word for it.
    expect("present again", again.present, VERSION != "3.1")
    got = [again.message() for _ in BOTH]
    expect_kept([(message.topic, message.payload) for message in got])
    again.leave()


def properties(other):
    client = Client("properties")
    client.subscribe(f"{PREFIX}/properties/+", 1)
    carried = Properties(PacketTypes.PUBLISH)
    carried.UserProperty = PAIR
    carried.ContentType = "text/plain"
    other.publish(f"{PREFIX}/properties/x", b"p", 1, properties=carried)
    got = client.message().properties
    expect("properties", (got.UserProperty, got.ContentType), (PAIR, "text/plain"))
    client.leave()


def identifier(other):
    client = Client("identifier")
    client.subscribe(f"{PREFIX}/identifier/+", 1, identifier=77)
    other.publish(f"{PREFIX}/identifier/x", b"i", 1)
    expect("identifier", client.message().properties.SubscriptionIdentifier, [77])
    client.leave()


other = Client("other")
expect("connected", other.reason.is_failure, False)
for scenario in [login, pairs, retained, will, kept] + ([properties, identifier] if FIVE else []):
    scenario(other)
    done(scenario.__name__)
other.leave()
