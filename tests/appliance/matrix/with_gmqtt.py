"""gmqtt through one cell of the matrix; see cell.py for the arguments."""

import asyncio
import contextlib
import ssl

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311

from cell import BOTH, HOST, LARGE, PAIR, PASSWORD, PATIENCE, PORT, PREFIX, USER, VERSION
from cell import authorities, done, expect, expect_kept

FIVE = VERSION == "5"


class Client:
    def __init__(self, name, kept=False, will=None, password=PASSWORD):
        options = {"will_message": gmqtt.Message(will, b"gone", qos=1)} if will else {}
        if FIVE and kept:
            options["session_expiry_interval"] = 3600
        self.mqtt = gmqtt.Client(f"{name}-{PREFIX}", clean_session=not kept, **options)
        self.mqtt.set_config({"reconnect_retries": 0})
        self.mqtt.set_auth_credentials(USER, password)
        self.subscribed, self.messages, self.acknowledged = asyncio.Queue(), asyncio.Queue(), asyncio.Queue()
        self.mqtt.on_subscribe = lambda c, mid, reasons, properties: self.subscribed.put_nowait(reasons[0])
        self.mqtt.on_message = self.on_message

    def on_message(self, _client, topic, payload, qos, properties):
        self.messages.put_nowait((topic, bytes(payload), qos, properties))
        return 0

    async def connect(self):
        version = MQTTv50 if FIVE else MQTTv311
        await asyncio.wait_for(
            self.mqtt.connect(HOST, PORT, ssl=authorities() or False, version=version, keepalive=60), PATIENCE
        )
        return self

    async def subscribe(self, topic, qos, **options):
        self.mqtt.subscribe(topic, qos, **options)
        expect("granted", await asyncio.wait_for(self.subscribed.get(), PATIENCE), qos)

    async def leave(self):
        # It says goodbye while answers are under way, and then takes them for an error of TLS.
        with contextlib.suppress(ssl.SSLError):
            await self.mqtt.disconnect()

    async def message(self):
        return await asyncio.wait_for(self.messages.get(), PATIENCE)


async def login(_):
    try:
        await Client("wrong", password="wrong").connect()
    except gmqtt.mqtt.handler.MQTTConnectError:
        return
    expect("wrong password", "accepted", "refused")


async def pairs(other):
    for subscribed in (0, 1, 2):
        client = await Client(f"pairs{subscribed}").connect()
        await client.subscribe(f"{PREFIX}/pairs/+/{subscribed}", subscribed)
        for published in (0, 1, 2):
            for payload in (b"", b"hello", LARGE):
                topic = f"{PREFIX}/pairs/{published}/{subscribed}"
                other.mqtt.publish(topic, payload, published)
                got = await client.message()
                wanted = (topic, payload, min(published, subscribed), 0)
                expect("pair", got[:3] + (got[3]["retain"],), wanted)
        await client.leave()


async def retained(other):
    other.mqtt.publish(f"{PREFIX}/retained/a", b"kept", 1, retain=True)
    # What it sends next is answered after what it sent before.
    await other.subscribe(f"{PREFIX}/retained-barrier", 0)
    client = await Client("late").connect()
    await client.subscribe(f"{PREFIX}/retained/#", 1)
    topic, payload, _qos, properties = await client.message()
    expect("retained", (topic, payload, properties["retain"]), (f"{PREFIX}/retained/a", b"kept", 1))
    await client.leave()


async def will(other):
    await other.subscribe(f"{PREFIX}/will/+", 1)
    dying = await Client("dying", will=f"{PREFIX}/will/x").connect()
    # gmqtt has no way to vanish but its transport's.
    dying.mqtt._connection._transport.abort()
    expect("will", (await other.message())[1], b"gone")


async def kept(other):
    client = await Client("keeper", kept=True).connect()
    await client.subscribe(f"{PREFIX}/kept/+", 2)
    await client.leave()
    for qos, number in BOTH:
        other.mqtt.publish(f"{PREFIX}/kept/{qos}", number, qos)
    again = await Client("keeper", kept=True).connect()
    expect_kept([(await again.message())[:2] for _ in BOTH])
    await again.leave()


async def properties(other):
    client = await Client("properties").connect()
    await client.subscribe(f"{PREFIX}/properties/+", 1)
    other.mqtt.publish(f"{PREFIX}/properties/x", b"p", 1, user_property=PAIR)
    expect("properties", (await client.message())[3]["user_property"], PAIR)
    await client.leave()


async def identifier(other):
    client = await Client("identifier").connect()
    await client.subscribe(f"{PREFIX}/identifier/+", 1, subscription_identifier=77)
    other.mqtt.publish(f"{PREFIX}/identifier/x", b"i", 1)
    expect("identifier", (await client.message())[3]["subscription_identifier"], [77])
    await client.leave()


async def main():
    other = await Client("other").connect()
    for scenario in [login, pairs, retained, will, kept] + ([properties, identifier] if FIVE else []):
        await scenario(other)
        done(scenario.__name__)
    await other.leave()


asyncio.run(main())
