"""aiomqtt through one cell of the matrix; see cell.py for the arguments."""

import asyncio
import socket

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from cell import BOTH, HOST, LARGE, PAIR, PASSWORD, PATIENCE, PORT, PREFIX, TRANSPORT, USER, VERSION
from cell import authorities, done, expect, expect_kept

LEVEL = {"3.1": aiomqtt.ProtocolVersion.V31, "3.1.1": aiomqtt.ProtocolVersion.V311, "5": aiomqtt.ProtocolVersion.V5}
FIVE = VERSION == "5"


def client(name, kept=False, will=None, password=PASSWORD):
    options = {"clean_session": not kept}
    if FIVE:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600 if kept else 0
        options = {"clean_start": not kept, "properties": properties}
    return aiomqtt.Client(
        HOST,
        PORT,
        identifier=f"{name}-{PREFIX}",
        username=USER,
        password=password,
        protocol=LEVEL[VERSION],
        transport="websockets" if TRANSPORT in ("ws", "wss") else "tcp",
        tls_context=authorities(),
        will=will and aiomqtt.Will(will, b"gone", 1),
        timeout=PATIENCE,
        **options,
    )


async def message(subscriber):
    return await asyncio.wait_for(anext(aiter(subscriber.messages)), PATIENCE)


async def login(_):
    try:
        async with client("wrong", password="wrong"):
            expect("wrong password", "accepted", "refused")
    except aiomqtt.MqttCodeError as error:
        expect("refused", error.rc in (4, 5) or getattr(error.rc, "is_failure", False), True)


async def pairs(other):
    for subscribed in (0, 1, 2):
        async with client(f"pairs{subscribed}") as subscriber:
            await subscriber.subscribe(f"{PREFIX}/pairs/+/{subscribed}", subscribed)
            for published in (0, 1, 2):
                for payload in (b"", b"hello", LARGE):
                    topic = f"{PREFIX}/pairs/{published}/{subscribed}"
                    await other.publish(topic, payload, published)
                    got = await message(subscriber)
                    wanted = (topic, payload, min(published, subscribed), False)
                    expect("pair", (got.topic.value, got.payload, got.qos, got.retain), wanted)


async def retained(other):
    await other.publish(f"{PREFIX}/retained/a", b"kept", 1, retain=True)
    async with client("late") as subscriber:
        await subscriber.subscribe(f"{PREFIX}/retained/#", 1)
        got = await message(subscriber)
        wanted = (f"{PREFIX}/retained/a", b"kept", True)
        expect("retained", (got.topic.value, got.payload, got.retain), wanted)


async def will(other):
    await other.subscribe(f"{PREFIX}/will/+", 1)
    try:
        async with client("dying", will=f"{PREFIX}/will/x") as dying:
            # aiomqtt has no way to vanish but its socket's, below paho's.
            kernel = dying._client.socket()
            getattr(kernel, "_socket", kernel).shutdown(socket.SHUT_RDWR)
            expect("will", (await message(other)).payload, b"gone")
    except aiomqtt.MqttError:
        return  # It noticed that its connection is gone.


async def kept(other):
    async with client("keeper", kept=True) as keeper:
        await keeper.subscribe(f"{PREFIX}/kept/+", 2)
    for qos, number in BOTH:
        await other.publish(f"{PREFIX}/kept/{qos}", number, qos)
    async with client("keeper", kept=True) as again:
        got = [await message(again) for _ in BOTH]
        expect_kept([(each.topic.value, each.payload) for each in got])


async def properties(other):
    async with client("properties") as subscriber:
        await subscriber.subscribe(f"{PREFIX}/properties/+", 1)
        carried = Properties(PacketTypes.PUBLISH)
        carried.UserProperty = PAIR
        await other.publish(f"{PREFIX}/properties/x", b"p", 1, properties=carried)
        expect("properties", (await message(subscriber)).properties.UserProperty, PAIR)


async def identifier(other):
    async with client("identifier") as subscriber:
        asked = Properties(PacketTypes.SUBSCRIBE)
        asked.SubscriptionIdentifier = 77
        await subscriber.subscribe(f"{PREFIX}/identifier/+", 1, properties=asked)
        await other.publish(f"{PREFIX}/identifier/x", b"i", 1)
        expect("identifier", (await message(subscriber)).properties.SubscriptionIdentifier, [77])


async def main():
    async with client("other") as other:
        for scenario in [login, pairs, retained, will, kept] + ([properties, identifier] if FIVE else []):
            await scenario(other)
            done(scenario.__name__)


asyncio.run(main())
