/* fgets takes empty lines, too, and its result ends the loop. */
#include <stdio.h>
#include <string.h>

int main(void)
{
    char line[100] = "";

    while (strcmp(line, "bye\n") != 0) {
        printf("write message: ");
        if (fgets(line, sizeof line, stdin) == NULL)
            break;
        printf("sent: %s", line);
    }
    return 0;
}
