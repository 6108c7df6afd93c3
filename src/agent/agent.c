/* agent.c - putting the parts together. */
#include "agent.h"
#include "api.h"

#include "ctserve/log.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void note(void *context, int level, const char *sentence)
{
    struct agent *agent = context;
    master_link_note(agent->link, level, sentence);
}

static void note_warning(void *context, const char *sentence)
{
    note(context, CTS_LOG_WARNING, sentence);
}

static void note_format(struct agent *agent, int level, const char *format, uint64_t number)
{
    char sentence[300];
    snprintf(sentence, sizeof(sentence), format, (unsigned long long)number);
    note(agent, level, sentence);
}

/* -- rings and exporter ----------------------------------------------------------------------- */
static void on_settled(void *context, struct span *span)
{
    rings_settle(((struct agent *)context)->rings, span);
}

static void on_turned(void *context)
{
    struct agent *agent = context;
    rings_flush(agent->rings);
    rings_drain(agent->rings);
}

static void on_retired(void *context, uint64_t ring_id)
{
    struct agent *agent = context;
    master_link_say(agent->link, CTS_AGENT_RETIRED, &ring_id, sizeof(ring_id));
}

static void on_recycle(void *context, uint64_t ring_id)
{
    struct agent *agent = context;
    master_link_say(agent->link, CTS_AGENT_RECYCLE, &ring_id, sizeof(ring_id));
}

static bool is_finished(struct agent *agent)
{
    if (!agent->is_stopping)
        return false;
    if (cts_clock_mono_ns() >= agent->stop_at_ns)
        return true;
    if (agent->master_is_gone && agent->rings != NULL && rings_adopt_orphans(agent->rings))
        return false;
    return agent->rings == NULL || rings_are_empty(agent->rings);
}

static void on_drain(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct agent *agent = CTS_CONTAINER(timer, struct agent, drain_timer);
    if (agent->rings != NULL)
        rings_drain(agent->rings);
    if (is_finished(agent))
        ev_break(loop, EVBREAK_ALL);
}

/* -- what the master says --------------------------------------------------------------------- */
/* The workers' user, before a byte that a worker wrote is looked at. Going on as root would be
 * worse than not going on. */
static int drop_privileges(const struct hello *hello)
{
    if (geteuid() != 0 || hello->uid <= 0)
        return 0;
    uid_t uid = (uid_t)hello->uid;
    gid_t gid = hello->gid >= 0 ? (gid_t)hello->gid : getegid();
    if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
        return -errno;
    return setuid(0) == 0 ? -EPERM : 0;
}

static void start_exporter(struct agent *agent)
{
    if (!agent->env.is_exporting)
        return;
    struct exporter_plan plan = {agent->loop, &agent->env, on_settled, on_turned, note, agent};
    agent->exporter = exporter_new(&plan);
    if (agent->exporter == NULL)
        note(agent, CTS_LOG_ERROR, "traces: the exporter could not be started; they are only kept "
             "locally");
}

static const char *environment(const char *name)
{
    return getenv(name);
}

static size_t bytes_from_environment(const char *name, size_t bytes)
{
    const char *text = getenv(name);
    long long number = text != NULL ? atoll(text) : 0;
    return number > 0 && number < (1ll << 32) ? (size_t)number : bytes;
}

static int start_parts(struct agent *agent)
{
    struct env_settings settings = {agent->hello.endpoint, agent->hello.protocol,
                                    agent->hello.service_name};
    env_read(&settings, environment, note_warning, agent, &agent->env);
    agent->store =
        store_new(bytes_from_environment("CTSERVE_STORE_BYTES", STORE_BYTES_MAX_DEFAULT));
    if (agent->store == NULL)
        return -ENOMEM;
    start_exporter(agent);
    struct rings_plan plan = {
        .store = agent->store, .exporter = agent->exporter, .env = &agent->env,
        .process = {.master_started_real_ns = agent->hello.started_real_ns,
                    .master_pid = agent->hello.master_pid,
                    .server_version = agent->hello.server_version, .app = agent->hello.app},
        .heap_bytes_max =
            bytes_from_environment("CTSERVE_HEAP_BYTES", RINGS_HEAP_BYTES_MAX_DEFAULT),
        .retired = on_retired, .recycle = on_recycle, .note = note, .context = agent};
    agent->rings = rings_new(&plan);
    return agent->rings == NULL ? -ENOMEM : 0;
}

static void say_ready(void *context, const char *address, const char *token)
{
    struct agent *agent = context;
    char body[512];
    if (address == NULL)
        snprintf(body, sizeof(body), "api=off\n");
    else
        snprintf(body, sizeof(body), "api=%s\ntoken=%s\n", address, token);
    master_link_say(agent->link, CTS_AGENT_READY, body, strlen(body));
}

static void on_hello(void *context, const struct hello *hello)
{
    struct agent *agent = context;
    if (agent->rings != NULL) {
        agent->hello.totals = hello->totals;
        return;
    }
    agent->hello = *hello;
    int r = drop_privileges(hello);
    if (r < 0) {
        note_format(agent, CTS_LOG_ERROR, "traces: cannot become the workers' user (errno %llu); "
                    "the agent leaves", (uint64_t)-r);
        exit(1);
    }
    r = start_parts(agent);
    if (r < 0) {
        note(agent, CTS_LOG_ERROR, "traces: no memory for the agent; it leaves");
        exit(1);
    }
    struct api_plan plan = {agent, say_ready, agent};
    agent->api = api_new(&plan);
    if (agent->api == NULL)
        say_ready(agent, NULL, NULL);
}

static void on_ring(void *context, const struct cts_agent_ring *ring, int fd)
{
    struct agent *agent = context;
    if (agent->rings == NULL)
        return;
    int r = rings_add(agent->rings, ring, fd);
    if (r == -EBADMSG || r == -EPERM) {
        uint64_t ring_id = ring->ring_id;
        note_format(agent, CTS_LOG_ERROR, "traces: ring %llu cannot be read; its worker should be "
                    "replaced", ring_id);
        on_recycle(agent, ring_id);
    } else if (r < 0) {
        note_format(agent, CTS_LOG_ERROR, "traces: a ring could not be mapped (errno %llu)",
                    (uint64_t)-r);
    }
}

static void on_worker(void *context, const struct cts_agent_worker *worker, struct cts_bytes stack)
{
    struct agent *agent = context;
    if (agent->rings != NULL)
        rings_event(agent->rings, worker, stack);
}

static void on_forget(void *context, uint64_t ring_id, const struct cts_agent_totals *totals)
{
    struct agent *agent = context;
    if (agent->rings == NULL)
        return;
    rings_forget(agent->rings, ring_id);
    agent->hello.totals = *totals;
}

static void on_stop(void *context, uint32_t deadline_ms)
{
    struct agent *agent = context;
    uint64_t at_ns = cts_clock_mono_ns() + (uint64_t)deadline_ms * 1000000u;
    if (agent->is_stopping && agent->stop_at_ns < at_ns)
        return;
    agent->is_stopping = true;
    agent->stop_at_ns = at_ns;
    if (agent->rings != NULL)
        rings_drain(agent->rings);
    if (agent->exporter != NULL)
        exporter_hurry(agent->exporter);
    /* From now on every 10 ms: the process ends as soon as there is nothing left to do. */
    ev_timer_stop(agent->loop, &agent->drain_timer);
    ev_timer_set(&agent->drain_timer, 0.0, AGENT_DRAIN_SECONDS / 10);
    ev_timer_start(agent->loop, &agent->drain_timer);
}

static void on_lost(void *context)
{
    struct agent *agent = context;
    agent->master_is_gone = true;
    on_stop(agent, AGENT_ORPHAN_MS);
}

/* -- a life ----------------------------------------------------------------------------------- */
static void say_unsent(struct agent *agent)
{
    size_t unsent = agent->rings != NULL ? rings_unsent(agent->rings) : 0;
    if (unsent > 0)
        note_format(agent, CTS_LOG_WARNING, "traces: %llu spans could not be delivered before the "
                    "end", unsent);
}

static void agent_done(struct agent *agent)
{
    api_free(agent->api);
    exporter_free(agent->exporter);
    rings_free(agent->rings);
    store_free(agent->store);
    env_plan_done(&agent->env);
    master_link_free(agent->link);
    ev_loop_destroy(agent->loop);
}

int agent_run(int link_fd)
{
    struct agent agent = {.started_mono_ns = cts_clock_mono_ns()};
    agent.loop = ev_loop_new(EVFLAG_AUTO | EVFLAG_NOENV);
    if (agent.loop == NULL)
        return 1;
    struct master_link_plan plan = {agent.loop, link_fd, on_hello, on_ring, on_worker, on_forget,
                                    on_stop, on_lost, &agent};
    agent.link = master_link_new(&plan);
    if (agent.link == NULL) {
        ev_loop_destroy(agent.loop);
        return 1;
    }
    ev_timer_init(&agent.drain_timer, on_drain, AGENT_DRAIN_SECONDS, AGENT_DRAIN_SECONDS);
    ev_timer_start(agent.loop, &agent.drain_timer);
    ev_run(agent.loop, 0);
    if (agent.rings != NULL)
        rings_flush(agent.rings);
    say_unsent(&agent);
    agent_done(&agent);
    return 0;
}
