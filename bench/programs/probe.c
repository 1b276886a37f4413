// The measuring program: what a container's processes do to a filesystem, with as little of its own as possible.
//
//   probe walk DIR                  readdir and fstatat of every entry
//   probe readall DIR               open, read to the end and close every regular file
//   probe readlist DIR LIST         the same for the files named in LIST, a path below DIR a line
//   probe seq FILE BUFFER PASSES keep|refill|drop
//                                   reads FILE from start to end PASSES times; the fastest pass counts
//
// The fastest, because a pass is so short that one interruption by another process doubles it. `keep` leaves the file's pages
// as they are; `refill` gives them back once and lets reading bring them in again before the passes; `drop` gives them back
// before each pass (posix_fadvise DONTNEED on the file itself: whatever lies below its filesystem keeps its own). Each prints
// one JSON object; times are of the work alone, not of starting the process.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 20];
static uint64_t entries, files, bytes;

static void fail(const char *what) {
  fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void read_file(int dir, const char *name) {
  int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) fail(name);
  for (;;) {
    ssize_t n = read(fd, buffer, sizeof buffer);
    if (n < 0) fail(name);
    if (n == 0) break;
    bytes += (uint64_t)n;
  }
  files++;
  close(fd);
}

// Takes over fd.
static void walk(int fd, int contents) {
  DIR *dir = fdopendir(fd);
  if (dir == NULL) fail("fdopendir");
  for (;;) {
    errno = 0;
    struct dirent *entry = readdir(dir);
    if (entry == NULL) break;
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    struct stat st;
    if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) fail(entry->d_name);
    entries++;
    if (S_ISDIR(st.st_mode)) {
      int below = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
      if (below < 0) fail(entry->d_name);
      walk(below, contents);
    } else if (contents && S_ISREG(st.st_mode)) {
      read_file(fd, entry->d_name);
    }
  }
  if (errno != 0) fail("readdir");
  closedir(dir);
}

static int open_dir(const char *path) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail(path);
  return fd;
}

static void read_list(const char *root, const char *list) {
  int dir = open_dir(root);
  FILE *names = fopen(list, "re");
  if (names == NULL) fail(list);
  char *line = NULL;
  size_t size = 0;
  ssize_t n;
  while ((n = getline(&line, &size, names)) > 0) {
    if (line[n - 1] == '\n') line[n - 1] = 0;
    read_file(dir, line);
  }
  free(line);
  fclose(names);
  close(dir);
}

// Share of the file's pages that are in memory, 0 to 1: shows that what is called warm is, and what is called dropped is not.
static double resident(int fd, size_t size) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (size + page - 1) / page, in = 0;
  void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
  unsigned char *seen = malloc(pages);
  if (map == MAP_FAILED || seen == NULL || mincore(map, size, seen) != 0) fail("mincore");
  for (size_t i = 0; i < pages; i++) in += seen[i] & 1;
  munmap(map, size);
  free(seen);
  return (double)in / (double)pages;
}

static void read_through(int fd, size_t length) {
  if (lseek(fd, 0, SEEK_SET) != 0) fail("lseek");
  for (;;) {
    ssize_t n = read(fd, buffer, length);
    if (n < 0) fail("read");
    if (n == 0) return;
    bytes += (uint64_t)n;
  }
}

static void sequential(const char *path, size_t length, int passes, const char *pages) {
  int drop = strcmp(pages, "drop") == 0;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) != 0) fail(path);
  if (length == 0 || length > sizeof buffer || st.st_size == 0) fail("buffer or file size");
  if (strcmp(pages, "refill") == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0) fail("posix_fadvise");
  read_through(fd, length); // what was not in memory is now, wherever it comes from
  double fastest = 0, before = 0;
  for (int i = 0; i < passes; i++) {
    bytes = 0;
    if (drop && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0) fail("posix_fadvise");
    before += resident(fd, (size_t)st.st_size) / passes;
    double start = now();
    read_through(fd, length);
    double seconds = now() - start;
    if (i == 0 || seconds < fastest) fastest = seconds;
  }
  printf("{\"bytes\":%lu,\"seconds\":%.9f,\"resident\":%.4f}\n", (unsigned long)bytes, fastest, before);
}

int main(int count, char **words) {
  double start = now();
  if (count == 3 && (strcmp(words[1], "walk") == 0 || strcmp(words[1], "readall") == 0)) {
    walk(open_dir(words[2]), words[1][0] == 'r');
  } else if (count == 4 && strcmp(words[1], "readlist") == 0) {
    read_list(words[2], words[3]);
  } else if (count == 6 && strcmp(words[1], "seq") == 0) {
    sequential(words[2], strtoul(words[3], NULL, 10), atoi(words[4]), words[5]);
    return 0;
  } else {
    fputs("usage: probe walk|readall DIR, readlist DIR LIST, seq FILE BUFFER PASSES keep|refill|drop\n", stderr);
    return 2;
  }
  double seconds = now() - start;
  printf("{\"entries\":%lu,\"files\":%lu,\"bytes\":%lu,\"seconds\":%.9f}\n", (unsigned long)entries, (unsigned long)files,
         (unsigned long)bytes, seconds);
  return 0;
}
