/* Preloaded into the programs that put the kernel's release into what they
   send: the recording says the same wherever it is made. A UTS namespace has a
   host name of its own, but no release. */

#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

int uname(struct utsname *buf)
{
	int err = syscall(SYS_uname, buf);

	if (err == 0) {
		strcpy(buf->release, "5.10.0-rollcall");
		strcpy(buf->version, "#1");
	}
	return err;
}
