/* list.h - a doubly linked list whose links live in its members. Room: base. */
#ifndef CTSERVE_LIST_H
#define CTSERVE_LIST_H

#include "ctserve/base.h"

struct cts_list {
    struct cts_list *next;
    struct cts_list *prev;
};

#define CTS_CONTAINER(link, type, member) ((type *)((char *)(link) - offsetof(type, member)))

static inline void cts_list_init(struct cts_list *head)
{
    head->next = head->prev = head;
}

static inline bool cts_list_is_empty(const struct cts_list *head)
{
    return head->next == head;
}

static inline void cts_list_put_last(struct cts_list *head, struct cts_list *link)
{
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

/* Take `link` out of whatever list it stands in; a link that stands nowhere must be init'ed. */
static inline void cts_list_take(struct cts_list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->next = link->prev = link;
}

#define CTS_LIST_EACH(head, link) \
    for (struct cts_list *link = (head)->next, *link##_next = link->next; link != (head); \
         link = link##_next, link##_next = link->next)

#endif
