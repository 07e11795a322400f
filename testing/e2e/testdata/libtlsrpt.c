/*
 * Sends one report about a failed MTA-STS policy fetch by libtlsrpt, as the
 * library has it, for tests to compare ours with:
 *
 *	libtlsrpt SOCKET DOMAIN RECORD CODE INFO REASON [-s STRING | -m PATTERN]...
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tlsrpt.h>

static void check(const char *doing, int result)
{
	if (result != 0) {
		fprintf(stderr, "%s: %s\n", doing, tlsrpt_strerror(result));
		exit(1);
	}
}

int main(int argc, char **argv)
{
	struct tlsrpt_connection_t *con;
	struct tlsrpt_dr_t *dr;
	int i;

	if (argc < 7)
		return 2;
	check("open", tlsrpt_open(&con, argv[1]));
	check("init", tlsrpt_init_delivery_request(&dr, con, argv[2], argv[3]));
	check("policy", tlsrpt_init_policy(dr, TLSRPT_POLICY_STS, argv[2]));
	for (i = 7; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "-s") == 0)
			check("string", tlsrpt_add_policy_string(dr, argv[i + 1]));
		else
			check("pattern", tlsrpt_add_mx_host_pattern(dr, argv[i + 1]));
	}
	check("failure", tlsrpt_add_delivery_request_failure(dr, atoi(argv[4]), NULL, NULL, NULL, NULL, argv[5], argv[6]));
	check("finish", tlsrpt_finish_policy(dr, TLSRPT_FINAL_FAILURE));
	check("send", tlsrpt_finish_delivery_request(&dr));
	check("close", tlsrpt_close(&con));
	return 0;
}
