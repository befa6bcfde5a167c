/* main for a fuzz target without a fuzzer: replay_NAME, in build/tests/, tries every file of
 * tests/corpus/NAME/ and writes TAP. A failure ends the program, as it ends the fuzzer. Then
 * fewer tests have run than the plan says. */
#include "fuzz.h"

#include <dirent.h>
#include <string.h>

enum { MAX_BYTES = 1 << 20, PATH_SIZE = 4096 };

static int is_seed(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void try_file(const char *path)
{
    uint8_t *bytes = malloc(MAX_BYTES);
    FILE *file = fopen(path, "rb");

    MUST(bytes != NULL && file != NULL);
    size_t n = fread(bytes, 1, MAX_BYTES, file);
    MUST(!ferror(file));
    fclose(file);
    LLVMFuzzerTestOneInput(bytes, n);
    free(bytes);
}

int main(int argc, char **argv)
{
    const char *name = strrchr(argv[0], '_'), *slash = strrchr(argv[0], '/');
    char folder[PATH_SIZE], path[2 * PATH_SIZE];
    struct dirent **seeds;

    MUST(argc == 1 && name != NULL && slash != NULL);
    snprintf(folder, sizeof folder, "%.*s/../../tests/corpus/%s", (int)(slash - argv[0]),
             argv[0], name + 1);
    int count = scandir(folder, &seeds, is_seed, alphasort);
    MUST(count > 0);
    printf("1..%d\n", count);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, seeds[i]->d_name);
        fflush(stdout);
        try_file(path);
        printf("ok %d - %s\n", i + 1, seeds[i]->d_name);
        free(seeds[i]);
    }
    free(seeds);
    return 0;
}
