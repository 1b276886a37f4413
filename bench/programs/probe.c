// The measuring program: what a container's processes do to a filesystem, with as little of its own as possible.
//
//   probe walk DIR                  readdir and fstatat of every entry
//   probe readall DIR               open, read to the end and close every regular file
//   probe readlist DIR LIST         the same for the files named in LIST, a path below DIR a line
//   probe times DIR LIST            the same, one time a file: their median, and what 99 of 100 do not pass
//   probe seq FILE BUFFER PASSES keep|refill|drop [BELOW…]
//                                   reads FILE from start to end PASSES times; the fastest pass counts
//   probe fault FILE OFFSET         maps FILE and touches the byte at OFFSET, without advice
//   probe resident FILE…            how many bytes of the files are in memory
//   probe forget FILE…              gives back the files' pages
//
// The fastest, because a pass is so short that one interruption by another process doubles it. `keep` leaves the file's pages
// as they are; `refill` gives them back once and lets reading bring them in again before the passes; `drop` gives back before
// each pass those of the file and of the files BELOW it (posix_fadvise DONTNEED: whatever else lies below keeps its own). Each
// prints one JSON object; times are of the work alone, not of starting the process.
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

// With `times`, which has room for `room`, notes how long each file took.
static void read_list(const char *root, const char *list, double *times, size_t room) {
  int dir = open_dir(root);
  FILE *names = fopen(list, "re");
  if (names == NULL) fail(list);
  char *line = NULL;
  size_t size = 0;
  ssize_t n;
  while ((n = getline(&line, &size, names)) > 0) {
    if (line[n - 1] == '\n') line[n - 1] = 0;
    double start = now();
    read_file(dir, line);
    if (times != NULL && files <= room) times[files - 1] = now() - start;
  }
  free(line);
  fclose(names);
  close(dir);
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void read_times(const char *root, const char *list) {
  static double times[1 << 16];
  size_t room = sizeof times / sizeof *times;
  read_list(root, list, times, room);
  if (files == 0 || files > room) fail("number of files");
  qsort(times, files, sizeof *times, by_size);
  printf("{\"median\":%.9f,\"p99\":%.9f}\n", times[files / 2], times[(files * 99 + 99) / 100 - 1]);
}

// Pages of the file that are in memory: shows that what is called warm is, and that what is called dropped is not.
static size_t resident(int fd, size_t size) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (size + page - 1) / page, in = 0;
  if (pages == 0) return 0;
  void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
  unsigned char *seen = malloc(pages);
  if (map == MAP_FAILED || seen == NULL || mincore(map, size, seen) != 0) fail("mincore");
  for (size_t i = 0; i < pages; i++) in += seen[i] & 1;
  munmap(map, size);
  free(seen);
  return in;
}

static int open_file(const char *path, struct stat *st) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, st) != 0) fail(path);
  return fd;
}

// Sums up over the files; with `give_back`, before that their pages are.
static uint64_t bytes_in_memory(int count, char **paths, int give_back) {
  uint64_t pages = 0;
  for (int i = 0; i < count; i++) {
    struct stat st;
    int fd = open_file(paths[i], &st);
    if (give_back && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0) fail("posix_fadvise");
    pages += resident(fd, (size_t)st.st_size);
    close(fd);
  }
  return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static double fault(const char *path, off_t offset) {
  struct stat st;
  int fd = open_file(path, &st);
  if (offset < 0 || offset >= st.st_size) fail("offset");
  volatile const unsigned char *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (map == MAP_FAILED) fail("mmap");
  double start = now();
  (void)map[offset];
  return now() - start;
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

static void sequential(const char *path, size_t length, int passes, const char *pages, int count, char **below) {
  int drop = strcmp(pages, "drop") == 0;
  struct stat st;
  int fd = open_file(path, &st);
  if (length == 0 || length > sizeof buffer || st.st_size == 0) fail("buffer or file size");
  if (strcmp(pages, "refill") == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0) fail("posix_fadvise");
  read_through(fd, length); // what was not in memory is now, wherever it comes from
  double fastest = 0, before = 0;
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  double pages_of_file = (double)(((size_t)st.st_size + page - 1) / page);
  for (int i = 0; i < passes; i++) {
    bytes = 0;
    if (drop && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0) fail("posix_fadvise");
    uint64_t still = drop ? bytes_in_memory(count, below, 1) : 0; // of the files below: they were to be given back too
    before += (double)(resident(fd, (size_t)st.st_size) + still / page) / pages_of_file / passes;
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
    read_list(words[2], words[3], NULL, 0);
  } else if (count == 4 && strcmp(words[1], "times") == 0) {
    read_times(words[2], words[3]);
    return 0;
  } else if (count >= 6 && strcmp(words[1], "seq") == 0) {
    sequential(words[2], strtoul(words[3], NULL, 10), atoi(words[4]), words[5], count - 6, words + 6);
    return 0;
  } else if (count == 4 && strcmp(words[1], "fault") == 0) {
    printf("{\"seconds\":%.9f}\n", fault(words[2], (off_t)strtoull(words[3], NULL, 10)));
    return 0;
  } else if (count >= 3 && (strcmp(words[1], "resident") == 0 || strcmp(words[1], "forget") == 0)) {
    printf("{\"bytes\":%lu}\n", (unsigned long)bytes_in_memory(count - 2, words + 2, words[1][0] == 'f'));
    return 0;
  } else {
    fputs("usage: probe walk|readall DIR, readlist|times DIR LIST, seq FILE BUFFER PASSES keep|refill|drop [BELOW…],\n"
          "             fault FILE OFFSET, resident|forget FILE…\n", stderr);
    return 2;
  }
  double seconds = now() - start;
  printf("{\"entries\":%lu,\"files\":%lu,\"bytes\":%lu,\"seconds\":%.9f}\n", (unsigned long)entries, (unsigned long)files,
         (unsigned long)bytes, seconds);
  return 0;
}
