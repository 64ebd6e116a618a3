/* paho's C client through one cell of the matrix.
 *
 * Arguments as for the Python clients (cell.py): version, transport, port, file of authorities, prefix.
 * One line is printed for each scenario that went as it must; anything else ends it with 1.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <MQTTClient.h>

enum { PATIENCE = 60000, LARGE = 100000, AWAY = 5 };

static const char *version, *transport, *port, *authorities, *prefix;
static int five;

#define CHECK(what)                                                                                         \
    do {                                                                                                    \
        if (!(what)) {                                                                                      \
            fprintf(stderr, "line %d: %s\n", __LINE__, #what);                                              \
            exit(1);                                                                                        \
        }                                                                                                   \
    } while (0)

static const char *topic(const char *rest)
{
    static char texts[4][256];
    static int next;
    char *text = texts[next++ % 4];
    snprintf(text, sizeof texts[0], "%s/%s", prefix, rest);
    return text;
}

/* Gives the reason of CONNACK. */
static int try_connect(MQTTClient *client, const char *name, int kept, const char *will, const char *password)
{
    char url[256], id[64];
    const char *scheme = strcmp(transport, "tls") == 0 ? "ssl" : transport;
    snprintf(id, sizeof id, "%s-%s", name, prefix);
    snprintf(url, sizeof url, "%s://localhost:%s%s", scheme, port, transport[0] == 'w' ? "/mqtt" : "");
    MQTTClient_createOptions create = MQTTClient_createOptions_initializer;
    create.MQTTVersion = five ? MQTTVERSION_5 : MQTTVERSION_DEFAULT;
    CHECK(MQTTClient_createWithOptions(client, url, id, MQTTCLIENT_PERSISTENCE_NONE, NULL, &create) == 0);

    MQTTClient_connectOptions old = MQTTClient_connectOptions_initializer;
    MQTTClient_connectOptions new = MQTTClient_connectOptions_initializer5;
    MQTTClient_connectOptions options = five ? new : old;
    MQTTClient_SSLOptions tls = MQTTClient_SSLOptions_initializer;
    MQTTClient_willOptions last = MQTTClient_willOptions_initializer;
    options.username = "barn";
    options.password = password;
    options.connectTimeout = PATIENCE / 1000;
    tls.trustStore = authorities;
    tls.verify = 1;
    if (authorities[0] != 0)
        options.ssl = &tls;
    if (will != NULL) {
        last.topicName = will;
        last.message = "gone";
        last.qos = 1;
        options.will = &last;
    }
    if (!five) {
        options.MQTTVersion = strcmp(version, "3.1") == 0 ? MQTTVERSION_3_1 : MQTTVERSION_3_1_1;
        options.cleansession = !kept;
        int reason = MQTTClient_connect(*client, &options);
        if (kept == 2 && options.MQTTVersion != MQTTVERSION_3_1)
            CHECK(options.returned.sessionPresent == 1);
        return reason;
    }
    options.cleanstart = !kept;
    MQTTProperty expiry = {.identifier = MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL};
    MQTTProperties properties = MQTTProperties_initializer;
    expiry.value.integer4 = kept ? 3600 : 0;
    MQTTProperties_add(&properties, &expiry);
    MQTTResponse response = MQTTClient_connect5(*client, &options, &properties, NULL);
    MQTTProperties_free(&properties);
    int reason = response.reasonCode;
    MQTTResponse_free(response);
    /* Of version 5 this library does not tell whether a session was there. */
    return reason;
}

static MQTTClient connect_client(const char *name, int kept)
{
    MQTTClient client;
    CHECK(try_connect(&client, name, kept, NULL, "right") == 0);
    return client;
}

static void leave(MQTTClient client)
{
    if (five)
        CHECK(MQTTClient_disconnect5(client, PATIENCE, MQTTREASONCODE_SUCCESS, NULL) == 0);
    else
        CHECK(MQTTClient_disconnect(client, PATIENCE) == 0);
    MQTTClient_destroy(&client);
}

static void subscribe(MQTTClient client, const char *filter, int qos, int identifier)
{
    if (!five) {
        CHECK(MQTTClient_subscribe(client, filter, qos) == 0);
        return;
    }
    MQTTProperties properties = MQTTProperties_initializer;
    MQTTProperty property = {.identifier = MQTTPROPERTY_CODE_SUBSCRIPTION_IDENTIFIER};
    property.value.integer4 = identifier;
    if (identifier != 0)
        MQTTProperties_add(&properties, &property);
    MQTTResponse response = MQTTClient_subscribe5(client, filter, qos, NULL, &properties);
    CHECK((int)response.reasonCode == qos);
    MQTTResponse_free(response);
    MQTTProperties_free(&properties);
}

static void publish(MQTTClient client, const char *to, const void *payload, int size, int qos, int retained)
{
    MQTTClient_message message = MQTTClient_message_initializer;
    MQTTProperty property = {.identifier = MQTTPROPERTY_CODE_USER_PROPERTY};
    MQTTClient_deliveryToken token;
    message.payload = (void *)payload;
    message.payloadlen = size;
    message.qos = qos;
    message.retained = retained;
    if (five) {
        property.value.data = (MQTTLenString){5, "field"};
        property.value.value = (MQTTLenString){5, "north"};
        MQTTProperties_add(&message.properties, &property);
        MQTTResponse response = MQTTClient_publishMessage5(client, to, &message, &token);
        CHECK(response.reasonCode == MQTTREASONCODE_SUCCESS);
        MQTTResponse_free(response);
        MQTTProperties_free(&message.properties);
    } else {
        CHECK(MQTTClient_publishMessage(client, to, &message, &token) == 0);
    }
    if (qos > 0)
        CHECK(MQTTClient_waitForCompletion(client, token, PATIENCE) == 0);
}

static MQTTClient_message *receive(MQTTClient client, char **from)
{
    MQTTClient_message *message = NULL;
    int length;
    int code = MQTTClient_receive(client, from, &length, &message, PATIENCE);
    CHECK(code == MQTTCLIENT_SUCCESS || code == MQTTCLIENT_TOPICNAME_TRUNCATED);
    CHECK(message != NULL);
    return message;
}

static void drop(MQTTClient_message *message, char *from)
{
    MQTTClient_freeMessage(&message);
    MQTTClient_free(from);
}

static int is(const MQTTClient_message *message, const char *payload)
{
    return message->payloadlen == (int)strlen(payload) && memcmp(message->payload, payload, strlen(payload)) == 0;
}

static void login(MQTTClient other)
{
    (void)other;
    MQTTClient client;
    CHECK(try_connect(&client, "wrong", 0, NULL, "wrong") > 0);
    MQTTClient_destroy(&client);
}

static void pairs(MQTTClient other)
{
    static char large[LARGE];
    memset(large, 1, sizeof large);
    const char *payloads[] = {"", "hello", large};
    const int sizes[] = {0, 5, LARGE};
    for (int subscribed = 0; subscribed <= 2; subscribed++) {
        MQTTClient client = connect_client("pairs", 0);
        char filter[] = "pairs/+/0";
        filter[8] = (char)('0' + subscribed);
        subscribe(client, topic(filter), subscribed, 0);
        for (int published = 0; published <= 2; published++) {
            for (int size = 0; size < 3; size++) {
                filter[6] = (char)('0' + published);
                publish(other, topic(filter), payloads[size], sizes[size], published, 0);
                char *from;
                MQTTClient_message *got = receive(client, &from);
                CHECK(strcmp(from, topic(filter)) == 0);
                CHECK(got->payloadlen == sizes[size]);
                CHECK(memcmp(got->payload, payloads[size], (size_t)sizes[size]) == 0);
                CHECK(got->qos == (published < subscribed ? published : subscribed));
                CHECK(got->retained == 0);
                drop(got, from);
            }
        }
        leave(client);
    }
}

static void retained(MQTTClient other)
{
    publish(other, topic("retained/a"), "kept", 4, 1, 1);
    MQTTClient client = connect_client("late", 0);
    subscribe(client, topic("retained/#"), 1, 0);
    char *from;
    MQTTClient_message *got = receive(client, &from);
    CHECK(strcmp(from, topic("retained/a")) == 0 && is(got, "kept") && got->retained == 1);
    drop(got, from);
    leave(client);
}

/* Before any other client is made, since it forks. */
static pid_t dying(int *ready)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        char go;
        MQTTClient client;
        CHECK(read(ends[0], &go, 1) == 1);
        CHECK(try_connect(&client, "dying", 0, topic("will/x"), "right") == 0);
        raise(SIGKILL);
    }
    *ready = ends[1];
    return child;
}

static void will(MQTTClient other, pid_t child, int ready)
{
    int status;
    char *from;
    subscribe(other, topic("will/+"), 1, 0);
    CHECK(write(ready, "!", 1) == 1);
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    MQTTClient_message *got = receive(other, &from);
    CHECK(is(got, "gone"));
    drop(got, from);
}

static void kept(MQTTClient other)
{
    MQTTClient client = connect_client("keeper", 1);
    subscribe(client, topic("kept/+"), 2, 0);
    leave(client);
    for (int number = 1; number <= AWAY; number++) {
        char payload[2] = {(char)('0' + number), 0};
        publish(other, topic("kept/1"), payload, 1, 1, 0);
        publish(other, topic("kept/2"), payload, 1, 2, 0);
    }
    client = connect_client("keeper", 2);
    /* Clients hand on QoS 2 at its PUBREL, so only what has one topic and one QoS is in order. */
    int last[3] = {0, 0, 0};
    for (int count = 0; count < 2 * AWAY; count++) {
        char *from;
        MQTTClient_message *got = receive(client, &from);
        int qos = from[strlen(from) - 1] - '0';
        char payload[2] = {(char)('0' + ++last[qos]), 0};
        CHECK(is(got, payload));
        drop(got, from);
    }
    CHECK(last[1] == AWAY && last[2] == AWAY);
    leave(client);
}

static void properties(MQTTClient other)
{
    char *from;
    MQTTClient client = connect_client("properties", 0);
    subscribe(client, topic("properties/+"), 1, 0);
    publish(other, topic("properties/x"), "p", 1, 1, 0);
    MQTTClient_message *got = receive(client, &from);
    MQTTProperty *pair = MQTTProperties_getProperty(&got->properties, MQTTPROPERTY_CODE_USER_PROPERTY);
    CHECK(pair != NULL && pair->value.data.len == 5 && memcmp(pair->value.data.data, "field", 5) == 0);
    CHECK(pair->value.value.len == 5 && memcmp(pair->value.value.data, "north", 5) == 0);
    drop(got, from);
    leave(client);
}

static void identifier(MQTTClient other)
{
    char *from;
    MQTTClient client = connect_client("identifier", 0);
    subscribe(client, topic("identifier/+"), 1, 77);
    publish(other, topic("identifier/x"), "i", 1, 1, 0);
    MQTTClient_message *got = receive(client, &from);
    CHECK(MQTTProperties_getNumericValue(&got->properties, MQTTPROPERTY_CODE_SUBSCRIPTION_IDENTIFIER) == 77);
    drop(got, from);
    leave(client);
}

int main(int count, char **words)
{
    CHECK(count == 6);
    version = words[1], transport = words[2], port = words[3], authorities = words[4], prefix = words[5];
    five = strcmp(version, "5") == 0;
    int ready;
    pid_t child = dying(&ready);
    MQTTClient_init_options init = MQTTClient_init_options_initializer;
    init.do_openssl_init = 1;
    MQTTClient_global_init(&init);
    MQTTClient other = connect_client("other", 0);
    login(other), puts("login");
    pairs(other), puts("pairs");
    retained(other), puts("retained");
    will(other, child, ready), puts("will");
    kept(other), puts("kept");
    if (five) {
        properties(other), puts("properties");
        identifier(other), puts("identifier");
    }
    leave(other);
    return 0;
}
