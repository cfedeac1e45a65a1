# A guest in one boot sector: greets on the first serial port and obeys a few commands.
#
# README.md says what the commands do and how to assemble this file. Real mode, no BIOS calls. Interrupts are off
# everywhere but in the one `sti; hlt` of `read`, so nothing here has to be reentrant.

        .intel_syntax noprefix
        .code16

        .set UART, 0x3f8
        .set RECEIVED, 0x01             # In the line status: a byte waits to be read.
        .set SENT, 0x20                 # In the line status: the next byte can be written.
        .set PIC_COMMAND, 0x20
        .set PIC_MASK, 0x21
        .set RECEIVE_VECTOR, 4 * 0x0c   # Where the BIOS maps IRQ 4.

        # What is written lies outside the code's page, 0x7000 to 0x7fff: a write to a page with translated
        # code costs TCG a look at that code, which halves the speed of `flood`.
        .set STACK, 0x7000
        .set LINE, 0x8000
        .set LINE_END, LINE + 4095
        .set PREVIOUS, 0x9000           # The byte received before this one.

        .globl _start
_start:
        cli
        cld
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, STACK
        mov     word ptr [RECEIVE_VECTOR], offset acknowledge
        mov     word ptr [RECEIVE_VECTOR + 2], ax

        # Only the UART may wake us; the timer of the BIOS would do so 18 times a second.
        mov     al, 0xff & ~(1 << 4)
        out     PIC_MASK, al

        mov     si, offset uart_setup
        mov     cx, (uart_setup_end - uart_setup) / 2
        mov     dh, UART >> 8
1:      lodsw
        mov     dl, al
        mov     al, ah
        out     dx, al
        loop    1b

        mov     si, offset greeting

# Prints the string at SI, which ends with the prompt, and obeys the next line.
answer:
        call    print
        mov     di, LINE

# Waits for a byte. A byte that arrives after the test raises IRQ 4, which stays pending until `sti` has let one
# more instruction through: the `hlt` that it ends. So no byte can be slept through.
read:
        mov     dx, UART + 5
        in      al, dx
        test    al, RECEIVED
        jnz     received
        sti
        hlt
        cli
        jmp     read

received:
        mov     dl, UART & 0xff
        in      al, dx
        mov     ah, al
        xchg    ah, [PREVIOUS]
        cmp     al, '\r'
        je      obey
        cmp     al, '\n'
        je      line_feed
        cmp     al, '\b'
        je      rub_out
        cmp     al, 0x7f
        je      rub_out
        cmp     di, LINE_END
        je      read
        stosb
        call    send
        jmp     read

rub_out:
        cmp     di, LINE
        je      read
        dec     di
        mov     si, offset rubbed_out
        call    print
        jmp     read

# The second half of a CR LF is not a second line.
line_feed:
        cmp     ah, '\r'
        je      read

obey:
        mov     byte ptr [di], 0
        cmp     di, LINE
        je      finish
        call    print_line_break

        # DI walks over the commands; SI ends at what follows the command's name in the line.
        mov     di, offset commands
1:      mov     si, LINE
        movzx   cx, byte ptr [di]
        inc     di
        jcxz    unknown
        repe cmpsb
        jne     2f
        cmp     byte ptr [si], ' '
        jb      3f
        lea     si, [si + 1]            # Keeps the flags, as `inc` would not.
        je      3f
2:      add     di, cx
        scasw                           # Skips the address.
        jmp     1b
3:      jmp     [di]

echo:
        call    print
        jmp     finish

# Byte I of a flood is '0' + I % 64, but every 64th is a line feed.
flood:
        call    number
        xor     bx, bx
1:      jecxz   finish
        mov     al, bl
        and     al, 63
        add     al, '0'
        cmp     al, '0' + 63
        jne     2f
        mov     al, '\n'
2:      call    send
        inc     bx
        dec     ecx
        jmp     1b

unknown:
        mov     al, '?'
        call    send
finish:
        mov     si, offset line_break
        jmp     answer

exit:
        call    number
        mov     al, cl
        out     0xf4, al
        jmp     prompt

panic:
        mov     al, 1
        mov     dx, 0x505
        out     dx, al
prompt:
        mov     si, offset prompt_text
        jmp     answer

reset:
        mov     al, 0xfe
        out     0x64, al
        jmp     hang

off:
        mov     ax, 0x2000
        mov     dx, 0x604
        out     dx, ax
hang:
        hlt
        jmp     hang

# Reads the decimal number at SI into ECX.
number:
        xor     eax, eax
        xor     ecx, ecx
1:      lodsb
        sub     al, '0'
        cmp     al, 9
        ja      2f
        imul    ecx, ecx, 10
        add     ecx, eax
        jmp     1b
2:      ret

# Prints the string at SI, up to its NUL.
print:
        lodsb
        test    al, al
        jz      1f
        call    send
        jmp     print
1:      ret

print_line_break:
        mov     al, '\r'
        call    send
        mov     al, '\n'

# Sends AL as soon as the UART takes it.
send:
        mov     ah, al
        mov     dx, UART + 5
1:      in      al, dx
        test    al, SENT
        jz      1b
        mov     al, ah
        mov     dl, UART & 0xff
        out     dx, al
        ret

# Runs only during the `hlt` of `read`, which does not need AL.
acknowledge:
        mov     al, 0x20
        out     PIC_COMMAND, al
        iret

# Pairs of a port's low byte and its value.
uart_setup:
        # Queues off, as after reset: switching them on would drop a byte that was typed while the BIOS ran.
        .byte   0xfa, 0x00
        .byte   0xfb, 0x83              # Line control: the next two set the speed.
        .byte   0xf8, 1                 # 115200 baud.
        .byte   0xf9, 0
        .byte   0xfb, 0x03              # Eight bits, no parity, one stop bit.
        .byte   0xfc, 0x0b              # DTR, RTS, and OUT2, which lets interrupts through.
        .byte   0xf9, 0x01              # An interrupt for what is received, for nothing else.
uart_setup_end:

        .macro  command name
        .byte   2f - 1f
1:      .ascii  "\name"
2:      .word   \name
        .endm
commands:
        command echo
        command flood
        command off
        command exit
        command reset
        command hang
        command panic
        .byte   0

rubbed_out:
        .asciz  "\b \b"
greeting:
        .ascii  "ratite guest ready"
line_break:
        .ascii  "\r\n"
prompt_text:
        .asciz  "> "
end:

        .org    510
        .word   0xaa55
