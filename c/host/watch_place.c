#include "host/watch_place.h"

#include <errno.h>
#include <inttypes.h>
#include <lauxlib.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "lua/door.h"

enum {
  HOOKED_MAX = 8,  /* Coroutines whose hook is ours at one time. */
  LEVELS_MAX = 64, /* Of each stack that are looked at. */
};

static struct {
  atomic_int request;  /* What the handler is to do. */
  atomic_int armed;    /* What the hook is to do; PLACE_NONE once that is over. */
  atomic_int raises;
  atomic_uint_fast64_t stood_ms;
  atomic_bool ready;
  struct place found;  /* Written on the loop's thread before `ready`, read after it. */
  struct {
    lua_State *L;
    lua_Hook hook;
    int mask, count;
  } hooked[HOOKED_MAX]; /* What hooks were there before ours. The loop's thread alone sees these. */
  int hooked_next;
} watch_place;
#define P watch_place

/* ---- looking: calls nothing that allocates or locks, for it may run in a signal's handler ---- */

/* Not the operator's: our library, and what the system installed for Lua. Chunks without a name of a file are the REPL's. */
static bool is_library(const char *source) {
  return strstr(source, "lua/shoal/") || strstr(source, "/share/lua/5.4/") || strcmp(source, "=?") == 0;
}

static void copy_text(char *out, size_t size, const char *text) {
  size_t length = strnlen(text, size - 1);
  memcpy(out, text, length);
  out[length] = '\0';
}

static void put_line(char *out, size_t size, const lua_Debug *ar) {
  char number[16];
  const char *source = ar->source[0] == '@' || ar->source[0] == '=' ? ar->source + 1 : "a chunk of text";
  size_t used = 0;
  int line = ar->currentline > 0 ? ar->currentline : 0;
  char *digit = number + sizeof number;
  *--digit = '\0';
  do *--digit = (char)('0' + line % 10);
  while ((line /= 10) > 0);
  *--digit = ':';
  copy_text(out, size - sizeof number, source);
  used = strlen(out);
  copy_text(out + used, size - used, digit);
}

static bool is_operators(const lua_Debug *ar) { return ar->what[0] != 'C' && !is_library(ar->source); }

static void look(const struct door_frame *innermost) {
  struct place *p = &P.found;
  memset(p, 0, sizeof *p);
  bool theirs = false; /* An operator's function was found. */
  if (!innermost) copy_text(p->at, sizeof p->at, "outside of Lua");
  for (const struct door_frame *f = innermost; f && !(theirs && p->site[0]); f = f->up) {
    lua_Debug ar;
    if (f->site && !p->site[0]) copy_text(p->site, sizeof p->site, f->site);
    for (int level = 0; !theirs && level < LEVELS_MAX && lua_getstack(f->L, level, &ar); level++) {
      if (!lua_getinfo(f->L, "Sln", &ar)) break;
      bool is_c = ar.what[0] == 'C';
      if (is_c && level == 0 && f == innermost) copy_text(p->function, sizeof p->function, ar.name ? ar.name : "?");
      theirs = is_operators(&ar);
      if (!is_c && !p->at[0]) put_line(p->at, sizeof p->at, &ar);
      else if (theirs) put_line(p->within, sizeof p->within, &ar);
    }
  }
  atomic_store(&P.ready, true);
}

static bool operators_run(void) {
  for (const struct door_frame *f = door_now(); f; f = f->up) {
    lua_Debug ar;
    for (int level = 0; lua_getstack(f->L, level, &ar); level++)
      if (lua_getinfo(f->L, "S", &ar) && is_operators(&ar)) return true;
  }
  return false;
}

/* ---- the hook ---- */

static void restore(lua_State *L) {
  for (int i = 0; i < HOOKED_MAX; i++) {
    if (P.hooked[i].L != L) continue;
    P.hooked[i].L = NULL;
    lua_sethook(L, P.hooked[i].hook, P.hooked[i].mask, P.hooked[i].count);
    return;
  }
  lua_sethook(L, NULL, 0, 0); /* It inherited ours from the coroutine that made it. */
}

static void raise_here(lua_State *L) {
  lua_Debug ar;
  char where[300] = "";
  if (lua_getstack(L, 0, &ar) && lua_getinfo(L, "Sl", &ar) && ar.what[0] != 'C') put_line(where, sizeof where, &ar);
  lua_pushfstring(L, "%s%sit ran for %d s without ending or waiting", where, where[0] ? ": " : "",
                  (int)(atomic_load(&P.stood_ms) / 1000));
  lua_error(L);
}

static void on_hook(lua_State *L, lua_Debug *ar);

static void arm(lua_State *L) {
  if (lua_gethook(L) != on_hook) {
    int slot = P.hooked_next;
    for (int i = 0; i < HOOKED_MAX; i++)
      if (P.hooked[i].L == L || (!P.hooked[i].L && P.hooked[slot].L)) slot = i;
    P.hooked_next = (slot + 1) % HOOKED_MAX;
    P.hooked[slot].L = L;
    P.hooked[slot].hook = lua_gethook(L);
    P.hooked[slot].mask = lua_gethookmask(L);
    P.hooked[slot].count = lua_gethookcount(L);
  }
  lua_sethook(L, on_hook, LUA_MASKCOUNT, 1);
}

static void on_hook(lua_State *L, lua_Debug *ar) {
  (void)ar;
  int armed = atomic_load(&P.armed);
  bool raises = armed == PLACE_INTERRUPT && operators_run();
  if (raises && atomic_fetch_sub(&P.raises, 1) > 1) {
    for (const struct door_frame *f = door_now(); f; f = f->up) arm(f->L); /* The next may be due outside of this coroutine. */
  } else {
    atomic_store(&P.armed, PLACE_NONE);
    restore(L);
  }
  if (raises) raise_here(L);
  if (armed == PLACE_HOOK) look(door_now());
}

static void on_signal(int number) {
  int saved = errno;
  const struct door_frame *frame = door_now();
  int request = atomic_exchange(&P.request, PLACE_NONE);
  (void)number;
  if (request == PLACE_LOOK || (request == PLACE_HOOK && !frame)) {
    atomic_store(&P.armed, PLACE_NONE); /* A hook that is still set would find the place after this one. */
    look(frame);
  } else if (request != PLACE_NONE && frame) {
    atomic_store(&P.armed, request);
    arm(frame->L);
  }
  errno = saved;
}

int place_open(void) {
  struct sigaction ours = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  sigfillset(&ours.sa_mask);
  return sigaction(PLACE_SIGNAL, &ours, NULL) < 0 ? -errno : 0;
}

/* ---- asking ---- */

void place_ask(enum place_request request) {
  atomic_store(&P.ready, false);
  atomic_store(&P.request, request);
}

void place_interrupt(int times, uint64_t stood_ms) {
  atomic_store(&P.raises, times);
  atomic_store(&P.stood_ms, stood_ms);
  atomic_store(&P.request, PLACE_INTERRUPT);
}

bool place_ready(void) { return atomic_load(&P.ready); }

void place_take(struct place *out) { *out = P.found; }

void place_over(void) {
  if (atomic_load_explicit(&P.armed, memory_order_relaxed) != PLACE_NONE) atomic_store(&P.armed, PLACE_NONE);
}

void place_last(struct place *out) {
  *out = P.found;
  memset(&P.found, 0, sizeof P.found);
}
