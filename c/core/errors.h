/* errors: the codes of failures that are not bugs: configuration, network, system, limits.
 *
 * A function that can be refused returns 0 or more, or a negative code: one of ours below, or a negative
 * errno from the operating system (-ECONNREFUSED), which libuv shares. A code has a name for programs
 * ("FULL", "ECONNREFUSED") and a text for people; no code compares texts. One list generates all three. */
#ifndef SHOAL_ERRORS_H
#define SHOAL_ERRORS_H

#define SHOAL_ERRORS(X)                                                                   \
  X(FULL, "a stated limit is reached")                                                    \
  X(CLOSED, "it is closed")                                                               \
  X(TIMEOUT, "no answer within the deadline")                                             \
  X(CIRCUIT, "the circuit to this peer is open after repeated failures")                  \
  X(DISCONNECTED, "the connection ended before the answer")                               \
  X(TOO_LARGE, "larger than the limit")                                                   \
  X(MALFORMED, "the bytes are not of the expected form")                                  \
  X(CONFIG, "the configuration is wrong")                                                 \
  X(NOT_FOUND, "there is no such thing")                                                  \
  X(EXISTS, "it exists already")                                                          \
  X(REFUSED, "the other side refused")                                                    \
  X(OVERLOADED, "shed under overload; try again later")                                   \
  X(UNHANDLED, "the other side has no receiver for this message")                         \
  X(FAILED, "the other side failed while handling this message")                          \
  X(NOT_LEADER, "this node does not lead; ask the leader")                                \
  X(UNKNOWN, "the outcome is not known: it may still apply")                              \
  X(STALE, "a greater fence was seen")                                                    \
  X(HELD, "another holder's lease of it has not expired")                                 \
  X(EXPIRED, "the lease has expired, or was released")                                    \
  X(CANCELLED, "it was cancelled")                                                        \
  X(NO_NAME, "the host name has no address")                                              \
  X(UNSUPPORTED, "not possible in this world")                                            \
  X(MEMORY, "out of memory")                                                              \
  X(BUSY, "somebody else holds it")                                                       \
  X(GONE, "the file or its folder was removed or replaced")

enum shoal_error {
  SHOAL_ERROR_BASE = -5000, /* Below every errno and every code of libuv. */
#define SHOAL_ERROR_ENUM(name, text) ERR_##name,
  SHOAL_ERRORS(SHOAL_ERROR_ENUM)
#undef SHOAL_ERROR_ENUM
  SHOAL_ERROR_END
};

/* The code's name, such as "FULL" or "EADDRINUSE"; "UNKNOWN_CODE" for a number that is neither. Static. */
const char *error_name(int code);

/* The code's text for people. Static. */
const char *error_text(int code);

/* The code with this name; 0 when there is none. The inverse of error_name(), for codes that crossed a wire. */
int error_from_name(const char *name);

#endif
