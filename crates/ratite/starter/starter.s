# The starter: a Linux program for x86-64 in a few hundred bytes that prepares its process and becomes another program.
# README.md says what its arguments are.
#
#   as --64 -o starter.o starter.s && ld -m elf_x86_64 -Ttext 0x400000 --oformat binary -o starter.bin starter.o

        .set FCNTL, 72
        .set CHDIR, 80
        .set EXECVE, 59
        .set WRITE, 1
        .set PRCTL, 157
        .set GETPPID, 110
        .set EXIT_GROUP, 231
        .set CLOSE_RANGE, 436

        .globl _start
        .text
# The headers of elf(5): one segment, the whole file, to be read and executed.
file:
        .byte 0x7f, 'E', 'L', 'F', 2, 1, 1, 0
        .quad 0
        .word 2, 62                     # ET_EXEC, EM_X86_64
        .long 1
        .quad _start
        .quad segment - file
        .quad 0
        .long 0
        .word 64, 56, 1, 0, 0, 0
segment:
        .long 1, 5                      # PT_LOAD, PF_R | PF_X
        .quad 0
        .quad file
        .quad file
        .quad file_end - file
        .quad file_end - file
        .quad 4096

_start:
        movq (%rsp), %rcx               # argc
        leaq 8(%rsp), %rbx              # argv
        leaq 16(%rsp,%rcx,8), %r13      # envp
        movq 8(%rbx), %rsi
        call number
        movl %eax, %ebp                 # where a failure is told

        # fcntl(report, F_SETFD, FD_CLOEXEC)
        movl $FCNTL, %eax
        movl %ebp, %edi
        movl $2, %esi
        movl $1, %edx
        syscall
        testl %eax, %eax
        js unprepared

        leaq 40(%rbx), %r14             # the first range
range:
        movq (%r14), %rsi
        cmpb $0, (%rsi)
        je ranges_end
        call number
        movl %eax, %r15d
        movq 8(%r14), %rsi
        call number
        # close_range(first, last, 0)
        movl %r15d, %edi
        movl %eax, %esi
        xorl %edx, %edx
        movl $CLOSE_RANGE, %eax
        syscall
        testl %eax, %eax
        js unprepared
        addq $16, %r14
        jmp range
ranges_end:
        addq $8, %r14                   # the program's own argv

        # prctl(PR_SET_PDEATHSIG, SIGKILL)
        movl $PRCTL, %eax
        movl $1, %edi
        movl $9, %esi
        syscall
        testl %eax, %eax
        js unprepared

        # A parent that ended before that sends no signal any more.
        movl $GETPPID, %eax
        syscall
        movl %eax, %r15d
        movq 32(%rbx), %rsi
        call number
        cmpl %eax, %r15d
        movl $-3, %eax                  # ESRCH
        jne unprepared

        movq 16(%rbx), %rdi
        cmpb $0, (%rdi)
        je become
        movl $CHDIR, %eax
        syscall
        testl %eax, %eax
        js failed
become:
        movq 24(%rbx), %rdi
        movq %r14, %rsi
        movq %r13, %rdx
        movl $EXECVE, %eax
        syscall
failed:
        negl %eax
        jmp tell
unprepared:
        negl %eax
        orl $0x10000, %eax
tell:
        pushq %rax
        movl $WRITE, %eax
        movl %ebp, %edi
        movq %rsp, %rsi
        movl $4, %edx
        syscall
        movl $EXIT_GROUP, %eax
        movl $127, %edi
        syscall

# The decimal number at rsi, in eax.
number:
        xorl %eax, %eax
digit:
        movzbl (%rsi), %ecx
        subl $'0', %ecx
        js number_end
        imull $10, %eax
        addl %ecx, %eax
        incq %rsi
        jmp digit
number_end:
        ret
file_end:
