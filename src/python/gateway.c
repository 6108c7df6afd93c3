/* gateway.c - this room's part of the table through which the server drives an application. */
#include "room.h"

void cts_py_fill_gateway(struct cts_gateway *gateway)
{
    gateway->load_config = config_load;
    gateway->configure = objects_configure;
    gateway->value_text = config_value_text;
    gateway->load_app = load_app;
    gateway->app_kind = load_app_kind;
    gateway->run_hook = hooks_run;
    gateway->worker_new = objects_worker_new;
    gateway->worker_forked = objects_worker_forked;
    gateway->worker_gone = objects_worker_gone;
    gateway->worker_free = objects_worker_free;
    gateway->workers_changed = objects_workers_changed;
    gateway->before_fork = process_before_fork;
    gateway->after_fork_parent = process_after_fork_parent;
    gateway->after_fork_child = process_after_fork_child;
    gateway->flush_stdio = process_flush_stdio;
    gateway->own_signals = signals_own;
    gateway->interrupt = signals_interrupt;
    gateway->run_pending = signals_run_pending;
    gateway->dump_on_signal = signals_dump;
    gateway->lock_give = process_lock_give;
    gateway->lock_take = process_lock_take;
    gateway->thread_start = process_thread_start;
    gateway->thread_stop = process_thread_stop;
    gateway->finalize = process_finalize;
}
