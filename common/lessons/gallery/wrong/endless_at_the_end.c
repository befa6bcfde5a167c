/* At the end of the input scanf stores nothing and returns EOF: the old line goes out again. */
#include <stdio.h>
#include <string.h>

int main(void)
{
    char line[100] = "";

    while (strcmp(line, "bye") != 0) {
        printf("write message: ");
        scanf("%99[^\n]%*c", line);
        printf("sent: %s\n", line);
    }
    return 0;
}
