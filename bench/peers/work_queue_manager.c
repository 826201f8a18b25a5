// The manager of Work Queue: submits a bag to the workers that connect, and waits for it. work_queue.sh starts both.
//
//   work_queue_manager TASKS BYTES WORKERS CODEC DATA KEY BAGS FOLDER PROGRAM
//
// It waits for all workers before the first task, as our makespan does. The program that a task is goes to each worker once, as a
// cached file, and its two outputs come back as files.
#include "payload.h"

#include <cctools/work_queue.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { WORKERS_WITHIN_MS = 30000, ENDS_WITHIN_S = 3600, ARGUMENTS = 10 };

static char **arguments;
static const char *folder, *program;

// Writes the port under its name in one step: whoever sees the file sees all of it.
static void publish_port(int port) {
	char draft[4096], path[4096], text[16];
	snprintf(draft, sizeof draft, "%s/port.new", folder);
	snprintf(path, sizeof path, "%s/port", folder);
	int length = snprintf(text, sizeof text, "%d\n", port);
	if (payload_write(draft, (const uint8_t *)text, (size_t)length) || rename(draft, path)) {
		perror(path);
		exit(1);
	}
}

static void wait_for_workers(struct work_queue *queue, int workers) {
	struct work_queue_stats stats = {0};
	for (double began = payload_now_ms(); payload_now_ms() - began < WORKERS_WITHIN_MS; usleep(1000)) {
		work_queue_wait(queue, 0);
		work_queue_get_stats(queue, &stats);
		if (stats.workers_connected >= workers) return;
	}
	fprintf(stderr, "error: %d of %d workers connected within %d ms\n", stats.workers_connected, workers, WORKERS_WITHIN_MS);
	exit(1);
}

static void submit(struct work_queue *queue, uint32_t index) {
	char command[1024], path[4096];
	snprintf(command, sizeof command, "./compress_task %u %s %s %s %s out.bin stats.json", index, arguments[2], arguments[4],
	         arguments[5], arguments[6]);
	struct work_queue_task *task = work_queue_task_create(command);
	work_queue_task_specify_file(task, program, "compress_task", WORK_QUEUE_INPUT, WORK_QUEUE_CACHE);
	snprintf(path, sizeof path, "%s/results/out_%u.bin", folder, index);
	work_queue_task_specify_file(task, path, "out.bin", WORK_QUEUE_OUTPUT, WORK_QUEUE_NOCACHE);
	snprintf(path, sizeof path, "%s/results/stats_%u.json", folder, index);
	work_queue_task_specify_file(task, path, "stats.json", WORK_QUEUE_OUTPUT, WORK_QUEUE_NOCACHE);
	work_queue_submit(queue, task);
}

// Returns how long the bag took, in milliseconds; ends the program if a task fails.
static double run(struct work_queue *queue, uint32_t tasks) {
	double began = payload_now_ms();
	for (uint32_t submitted = 0, done = 0; done < tasks;) {
		// A queue that is always full slows the manager down with every task in it.
		while (submitted < tasks && work_queue_hungry(queue)) submit(queue, submitted++);
		struct work_queue_task *task = work_queue_wait(queue, 1);
		if (!task) {
			if (payload_now_ms() - began < ENDS_WITHIN_S * 1e3) continue;
			fprintf(stderr, "error: %u of %u tasks within %d s\n", done, tasks, ENDS_WITHIN_S);
			exit(1);
		}
		if (task->result != WORK_QUEUE_RESULT_SUCCESS || task->return_status != 0) {
			fprintf(stderr, "error: %s: result %d, status %d: %s\n", task->command_line, task->result, task->return_status,
			        task->output ? task->output : "");
			exit(1);
		}
		work_queue_task_delete(task);
		done++;
	}
	return payload_now_ms() - began;
}

int main(int count, char **given) {
	if (count != ARGUMENTS) {
		fprintf(stderr, "usage: work_queue_manager TASKS BYTES WORKERS CODEC DATA KEY BAGS FOLDER PROGRAM\n");
		return 2;
	}
	arguments = given, folder = given[8], program = given[9];
	uint32_t tasks = (uint32_t)payload_number("TASKS", given[1], 1, UINT32_MAX);
	int workers = (int)payload_number("WORKERS", given[3], 1, 1024);
	unsigned bags = (unsigned)payload_number("BAGS", given[7], 1, 100);
	char password[4096];
	snprintf(password, sizeof password, "%s/password", folder);
	struct work_queue *queue = work_queue_create(-1);
	if (!queue) return perror("work_queue_create"), 1;
	// It listens on every address of the machine: nobody without the password of this run gets a task.
	if (!work_queue_specify_password_file(queue, password)) return perror(password), 1;
	publish_port(work_queue_port(queue));
	wait_for_workers(queue, workers);
	double makespan = run(queue, tasks), first_ended = payload_now_ms();
	for (unsigned i = 1; i < bags; i++) makespan = run(queue, tasks);
	printf("{\"makespan_ms\":%.3f,\"extra_ms\":%.3f}\n", makespan, payload_now_ms() - first_ended);
	fflush(stdout);
	work_queue_shut_down_workers(queue, 0);
	work_queue_delete(queue);
	return 0;
}
