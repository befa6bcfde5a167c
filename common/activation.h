/* Starting under a service manager such as systemd. The manager may pass a listening socket,
 * which it keeps open while the server restarts (sd_listen_fds(3)). It may also want to know
 * when the server is ready (sd_notify(3)). Both take a few lines only, without libsystemd. */
#ifndef ACTIVATION_H
#define ACTIVATION_H

/* Returns the descriptor of the socket that was passed to this process; or -1 if none was: then
 * *why is NULL, or says what is wrong with LISTEN_PID or LISTEN_FDS (a static string). */
int activation_socket(const char **why);

/* Sends a state such as "READY=1" to NOTIFY_SOCKET, if that is set. Returns 0, or -1 with
 * errno. */
int activation_notify(const char *state);

#endif
