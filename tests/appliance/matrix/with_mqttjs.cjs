// MQTT.js through one cell of the matrix.
//
// Arguments as for the Python clients (cell.py): version, transport, port, file of authorities, prefix.
// One line is printed for each scenario that went as it must.

const assert = require('node:assert');
const { once, on } = require('node:events');
const fs = require('node:fs');
const mqtt = require('mqtt');

const [version, transport, port, authorities, prefix] = process.argv.slice(2);
const five = version === '5';
const scheme = { tcp: 'mqtt', tls: 'mqtts', ws: 'ws', wss: 'wss' }[transport];
const large = Buffer.alloc(100_000, 1);
const away = ['1', '2', '3', '4', '5'];

function connect(name, { kept = false, will, password = 'right' } = {}) {
    const client = mqtt.connect(`${scheme}://localhost:${port}${scheme.startsWith('ws') ? '/mqtt' : ''}`, {
        clientId: `${name}-${prefix}`,
        username: 'barn',
        password,
        protocolVersion: { '3.1': 3, '3.1.1': 4, 5: 5 }[version],
        protocolId: version === '3.1' ? 'MQIsdp' : 'MQTT',
        clean: !kept,
        ca: authorities ? fs.readFileSync(authorities) : undefined,
        will: will ? { topic: will, payload: 'gone', qos: 1 } : undefined,
        properties: five ? { sessionExpiryInterval: kept ? 3600 : 0 } : undefined,
        reconnectPeriod: 0,
    });
    // From the start, since what was kept comes with CONNACK.
    client.messages = on(client, 'message');
    return client;
}

async function connected(name, options) {
    const client = connect(name, options);
    [client.answer] = await once(client, 'connect');
    return client;
}

async function message(client) {
    const [topic, payload, packet] = (await client.messages.next()).value;
    return { topic, payload, qos: packet.qos, retain: packet.retain, properties: packet.properties };
}

async function subscribe(client, topic, options) {
    const granted = await client.subscribeAsync(topic, options);
    assert.strictEqual(granted[0].qos, options.qos);
}

const scenarios = {
    async login() {
        const refused = connect('wrong', { password: 'wrong' });
        const [error] = await once(refused, 'error');
        assert.ok([4, 5, 134, 135].includes(error.code), String(error));
    },

    async pairs(other) {
        for (const subscribed of [0, 1, 2]) {
            const client = await connected(`pairs${subscribed}`);
            await subscribe(client, `${prefix}/pairs/+/${subscribed}`, { qos: subscribed });
            for (const published of [0, 1, 2]) {
                for (const payload of [Buffer.alloc(0), Buffer.from('hello'), large]) {
                    const topic = `${prefix}/pairs/${published}/${subscribed}`;
                    await other.publishAsync(topic, payload, { qos: published });
                    const got = await message(client);
                    assert.strictEqual(got.topic, topic);
                    assert.ok(got.payload.equals(payload));
                    assert.deepStrictEqual([got.qos, got.retain], [Math.min(published, subscribed), false]);
                }
            }
            await client.endAsync();
        }
    },

    async retained(other) {
        await other.publishAsync(`${prefix}/retained/a`, 'kept', { qos: 1, retain: true });
        const client = await connected('late');
        await subscribe(client, `${prefix}/retained/#`, { qos: 1 });
        const { topic, payload, retain } = await message(client);
        assert.deepStrictEqual([topic, String(payload), retain], [`${prefix}/retained/a`, 'kept', true]);
        await client.endAsync();
    },

    async will(other) {
        await subscribe(other, `${prefix}/will/+`, { qos: 1 });
        const dying = await connected('dying', { will: `${prefix}/will/x` });
        dying.stream.destroy();
        assert.strictEqual(String((await message(other)).payload), 'gone');
    },

    async kept(other) {
        const client = await connected('keeper', { kept: true });
        assert.strictEqual(client.answer.sessionPresent, false);
        await subscribe(client, `${prefix}/kept/+`, { qos: 2 });
        await client.endAsync();
        for (const number of away) {
            for (const qos of [1, 2]) {
                await other.publishAsync(`${prefix}/kept/${qos}`, number, { qos });
            }
        }
        const again = await connected('keeper', { kept: true });
        // 3.1 has no word for it.
        assert.strictEqual(again.answer.sessionPresent, version !== '3.1');
        // Clients hand on QoS 2 at its PUBREL, so only what has one topic and one QoS is in order.
        const got = { 1: [], 2: [] };
        for (let count = 0; count < 2 * away.length; count += 1) {
            const { topic, payload } = await message(again);
            got[topic.at(-1)].push(String(payload));
        }
        assert.deepStrictEqual(got, { 1: away, 2: away });
        await again.endAsync();
    },
};

const ofFive = {
    async properties(other) {
        const client = await connected('properties');
        await subscribe(client, `${prefix}/properties/+`, { qos: 1 });
        const userProperties = { field: 'north' };
        await other.publishAsync(`${prefix}/properties/x`, 'p', { qos: 1, properties: { userProperties } });
        assert.deepStrictEqual({ ...(await message(client)).properties.userProperties }, userProperties);
        await client.endAsync();
    },

    async identifier(other) {
        const client = await connected('identifier');
        await subscribe(client, `${prefix}/identifier/+`, { qos: 1, properties: { subscriptionIdentifier: 77 } });
        await other.publishAsync(`${prefix}/identifier/x`, 'i', { qos: 1 });
        assert.deepStrictEqual([(await message(client)).properties.subscriptionIdentifier].flat(), [77]);
        await client.endAsync();
    },
};

async function main() {
    const other = await connected('other');
    for (const [name, scenario] of Object.entries(five ? { ...scenarios, ...ofFive } : scenarios)) {
        await scenario(other);
        console.log(name);
    }
    await other.endAsync();
}

main().then(
    () => process.exit(0),
    (error) => {
        console.error(error);
        process.exit(1);
    },
);
