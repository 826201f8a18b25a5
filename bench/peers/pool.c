// The in-process limit of the peers: a thread pool with their payload and nothing else. It promises nothing, and keeps every
// output in memory; what is written for the check is written afterwards.
//
//   pool TASKS BYTES WORKERS CODEC DATA KEY BAGS FOLDER
#include "payload.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS_MAX = 1024 };

static struct {
	uint32_t tasks;
	size_t bytes;
	struct payload_arguments of;
	atomic_uint next;
	uint8_t **outputs;
	struct payload_stats *stats;
} bag;

static void *work(void *unused) {
	uint8_t *input = malloc(bag.bytes + 1);
	uint32_t index;
	while (input && (index = atomic_fetch_add(&bag.next, 1)) < bag.tasks) {
		double began = payload_now_ms();
		payload_generate(&bag.of.data, &bag.of.key, index, input, bag.bytes);
		double generated = payload_now_ms();
		size_t output_bytes;
		if (!(bag.outputs[index] = payload_compress(input, bag.bytes, &bag.of.codec, &output_bytes))) break;
		double ended = payload_now_ms();
		bag.stats[index] = (struct payload_stats){index, bag.bytes, output_bytes, generated - began, ended - generated, ended - began};
	}
	free(input);
	return unused;
}

// Returns how long the bag took, in milliseconds.
static double run(unsigned workers) {
	pthread_t threads[THREADS_MAX];
	atomic_store(&bag.next, 0);
	for (uint32_t i = 0; i < bag.tasks; i++) {
		free(bag.outputs[i]);
		bag.outputs[i] = NULL;
	}
	double began = payload_now_ms();
	for (unsigned i = 0; i < workers; i++) {
		if (pthread_create(&threads[i], NULL, work, NULL)) {
			fprintf(stderr, "error: no thread\n");
			exit(1);
		}
	}
	for (unsigned i = 0; i < workers; i++) pthread_join(threads[i], NULL);
	return payload_now_ms() - began;
}

static int write_all(const char *folder) {
	char path[4096];
	for (uint32_t i = 0; i < bag.tasks; i++) {
		if (!bag.outputs[i]) {
			fprintf(stderr, "error: task %u has no output\n", i);
			return 1;
		}
		snprintf(path, sizeof path, "%s/results/out_%u.bin", folder, i);
		int failed = payload_write(path, bag.outputs[i], bag.stats[i].output_bytes);
		snprintf(path, sizeof path, "%s/results/stats_%u.json", folder, i);
		if (failed || payload_write_stats(path, &bag.stats[i])) {
			perror(path);
			return 1;
		}
	}
	return 0;
}

int main(int count, char **arguments) {
	if (count != 9) {
		fprintf(stderr, "usage: pool TASKS BYTES WORKERS CODEC DATA KEY BAGS FOLDER\n");
		return 2;
	}
	bag.tasks = (uint32_t)payload_number("TASKS", arguments[1], 1, UINT32_MAX);
	bag.bytes = payload_number("BYTES", arguments[2], 0, (uint64_t)1 << 32);
	unsigned workers = (unsigned)payload_number("WORKERS", arguments[3], 1, THREADS_MAX);
	unsigned bags = (unsigned)payload_number("BAGS", arguments[7], 1, 100);
	payload_arguments(arguments[5], arguments[6], arguments[4], &bag.of);
	bag.outputs = calloc(bag.tasks, sizeof *bag.outputs);
	bag.stats = calloc(bag.tasks, sizeof *bag.stats);
	if (!bag.outputs || !bag.stats) return perror("pool"), 1;
	double makespan = run(workers), first_ended = payload_now_ms();
	for (unsigned i = 1; i < bags; i++) makespan = run(workers);
	if (write_all(arguments[8])) return 1;
	printf("{\"makespan_ms\":%.3f,\"extra_ms\":%.3f}\n", makespan, payload_now_ms() - first_ended);
	return 0;
}
