/* hiredis_proof - does our loop have the interface that other programs call "ae"?
 *
 *     redis-server <---> hiredis's asynchronous client <---> its adapters/ae.h <---> our ae.h
 *
 * hiredis, the client library of Redis, brings an adapter for Redis's own loop. Here the
 * adapter is compiled, unchanged, with our header. So hiredis creates and deletes the events,
 * and hiredis depends on what our callbacks report. Each key is set, and read back when the
 * answer has come.
 *
 * Watch: every back-end prints the same, except for the number of iterations.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/adapters/ae.h>
#include <hiredis/async.h>
#include <hiredis/hiredis.h>

enum { KEYS = 1000, AT_A_TIME = 10, TIMEOUT_MS = 20000 };

static aeEventLoop *loop;
static int begun, set, read_back, iterations, failed;
static char connecting[300]; /* the error message if that fails */

static void give_up(const char *what, const char *why)
{
    fprintf(stderr, "hiredis_proof: %s: %s\n", what, why);
    failed = 1;
    aeStop(loop);
}

struct key {
    char name[24], value[24];
};

static struct key keys[KEYS]; /* passed to the callbacks as their data */

static void begin_next_key(redisAsyncContext *redis);

static void on_get(redisAsyncContext *redis, void *data, void *privdata)
{
    redisReply *reply = data;
    const struct key *key = privdata;

    if (reply == NULL)
        return; /* the connection is lost: on_disconnect reports why */
    if (reply->type != REDIS_REPLY_STRING || strcmp(reply->str, key->value) != 0) {
        give_up("GET", reply->str != NULL ? reply->str : "no such key");
        return;
    }
    if (++read_back == KEYS)
        redisAsyncDisconnect(redis);
    else
        begin_next_key(redis);
}

static void on_set(redisAsyncContext *redis, void *data, void *privdata)
{
    redisReply *reply = data;
    struct key *key = privdata;

    if (reply == NULL)
        return;
    if (reply->type != REDIS_REPLY_STATUS || strcmp(reply->str, "OK") != 0) {
        give_up("SET", reply->str);
        return;
    }
    set++;
    redisAsyncCommand(redis, on_get, key, "GET %s", key->name);
}

static void begin_next_key(redisAsyncContext *redis)
{
    struct key *key = &keys[begun];

    if (begun == KEYS)
        return;
    snprintf(key->name, sizeof key->name, "key:%d", begun);
    snprintf(key->value, sizeof key->value, "value:%d", begun * begun);
    begun++;
    redisAsyncCommand(redis, on_set, key, "SET %s %s", key->name, key->value);
}

static void on_connect(const redisAsyncContext *redis, int status)
{
    if (status != REDIS_OK)
        give_up(connecting, redis->errstr);
}

static void on_disconnect(const redisAsyncContext *redis, int status)
{
    if (status != REDIS_OK)
        give_up("connection lost", redis->errstr);
    aeStop(loop);
}

static int on_timeout(aeEventLoop *l, long long id, void *data)
{
    AE_NOTUSED(l);
    AE_NOTUSED(id);
    AE_NOTUSED(data);
    give_up("timeout", "Redis has not answered all commands");
    return AE_NOMORE;
}

static void count_iteration(aeEventLoop *l)
{
    AE_NOTUSED(l);
    iterations++;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        int help = argc == 2 && strcmp(argv[1], "--help") == 0;
        fprintf(help ? stdout : stderr, "usage: hiredis_proof HOST PORT\n");
        return help ? 0 : 2;
    }
    loop = aeCreateEventLoop(64);
    if (loop == NULL) {
        perror("hiredis_proof");
        return 1;
    }

    snprintf(connecting, sizeof connecting, "cannot connect to %s port %s", argv[1], argv[2]);
    redisAsyncContext *redis = redisAsyncConnect(argv[1], atoi(argv[2]));

    if (redis == NULL || redis->err || redisAeAttach(loop, redis) != REDIS_OK) {
        fprintf(stderr, "hiredis_proof: %s\n", redis != NULL ? redis->errstr : "no memory");
        return 1;
    }
    redisAsyncSetConnectCallback(redis, on_connect);
    redisAsyncSetDisconnectCallback(redis, on_disconnect);
    aeSetBeforeSleepProc(loop, count_iteration);
    aeCreateTimeEvent(loop, TIMEOUT_MS, on_timeout, NULL, NULL);
    for (int i = 0; i < AT_A_TIME; i++)
        begin_next_key(redis);
    aeMain(loop);
    aeDeleteEventLoop(loop);
    printf("%-6s  %d keys set, %d read back, in %d iterations\n", aeGetApiName(), set,
           read_back, iterations);
    return failed || read_back != KEYS;
}
