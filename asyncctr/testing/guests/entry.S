/* The ways into the kernel: from QEMU by PVH, from interrupts, from system calls; and the way back. */

    .section .note.pvh, "a", @note
    .balign 4
    .long   4, 8, 18                    /* lengths of name and value; XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz  "Xen"
    .quad   pvh_entry

    .text
    .code32
    .global pvh_entry
pvh_entry:                              /* 32 bits, no paging, %ebx is the start information */
    cld
    mov     $stack_end, %esp
    mov     $level4, %eax
    mov     %eax, %cr3
    mov     %cr4, %eax
    or      $0x620, %eax                /* PAE, and SSE with its exceptions */
    mov     %eax, %cr4
    mov     $0xc0000080, %ecx           /* EFER: long mode, and the syscall instruction */
    rdmsr
    or      $0x101, %eax
    wrmsr
    mov     %cr0, %eax
    and     $~4, %eax                   /* there is a floating-point unit */
    or      $0x80010002, %eax           /* paging, write protection in ring 0, and wait monitors it */
    mov     %eax, %cr0
    lgdt    gdt_pointer
    ljmp    $0x08, $long_mode

    .code64
long_mode:
    mov     $0x10, %eax
    mov     %eax, %ds
    mov     %eax, %es
    mov     %eax, %ss
    xor     %eax, %eax
    mov     %eax, %fs
    mov     %eax, %gs
    mov     %ebx, %edi
    call    start
    ud2

/* One way in for each vector: 16 bytes each, as machine.c counts on. */
    .balign 16
    .global vectors
vectors:
    .set    vector, 0
    .rept   48
    .balign 16
    .if     !(vector == 8 || vector == 17 || vector == 21 || vector == 29 || vector == 30 || (vector >= 10 && vector <= 14))
    push    $0                          /* these have no error code of the processor's */
    .endif
    push    $vector
    jmp     enter
    .set    vector, vector + 1
    .endr

    .balign 16
    .global syscall_entry
syscall_entry:                          /* %rcx: the address to return to, %r11: the flags */
    mov     %rsp, user_rsp
    mov     $stack_end, %rsp
    push    $0x1b
    push    user_rsp
    push    %r11
    push    $0x23
    push    %rcx
    push    $0
    push    $128
enter:
    push    %rax
    push    %rbx
    push    %rcx
    push    %rdx
    push    %rsi
    push    %rdi
    push    %rbp
    push    %r8
    push    %r9
    push    %r10
    push    %r11
    push    %r12
    push    %r13
    push    %r14
    push    %r15
    mov     %rsp, %rdi
    cld
    call    trap
leave:
    pop     %r15
    pop     %r14
    pop     %r13
    pop     %r12
    pop     %r11
    pop     %r10
    pop     %r9
    pop     %r8
    pop     %rbp
    pop     %rdi
    pop     %rsi
    pop     %rdx
    pop     %rcx
    pop     %rbx
    pop     %rax
    add     $16, %rsp
    iretq

    .global enter_program
enter_program:
    mov     %rdi, %rsp
    jmp     leave

    .data
    .balign 16
    .global gdt
gdt:                                    /* in the order that syscall and sysret want */
    .quad   0
    .quad   0x00af9b000000ffff          /* 0x08 the kernel's code */
    .quad   0x00cf93000000ffff          /* 0x10 its data */
    .quad   0x00cff3000000ffff          /* 0x18 the program's data */
    .quad   0x00affb000000ffff          /* 0x20 its code */
    .quad   0, 0                        /* 0x28 the task state, which machine.c fills in */
gdt_pointer:
    .word   . - gdt - 1
    .quad   gdt
user_rsp:
    .quad   0

/* The first GiB, and the last below 4 GiB, where the devices are; each page as it is, in large pages. */
    .balign 4096
level4:
    .quad   level3 + 7
    .fill   511, 8, 0
level3:
    .quad   memory_pages + 7, 0, 0, device_pages + 3
    .fill   508, 8, 0
    .global memory_pages
memory_pages:
    .quad   0x83                        /* the kernel's own; all others are the program's, for now */
    .set    page, 1
    .rept   511
    .quad   page * 0x200000 + 0x87
    .set    page, page + 1
    .endr
device_pages:
    .set    page, 0
    .rept   512
    .quad   0xc0000000 + page * 0x200000 + 0x9b
    .set    page, page + 1
    .endr

    .bss
    .balign 16
    .fill   65536
    .global stack_end
stack_end:

    .section .note.GNU-stack, "", @progbits
