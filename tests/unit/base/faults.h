/* faults.h - making the n-th allocation fail. Needs -Wl,--wrap for malloc, calloc, realloc. */
#ifndef TEST_FAULTS_H
#define TEST_FAULTS_H

/* From now on the allocation number `nth` (1 is the next one) fails, and only that one. 0: none. */
void faults_arm(long nth);
/* How many allocations were asked for since faults_arm. */
long faults_seen(void);

#endif
