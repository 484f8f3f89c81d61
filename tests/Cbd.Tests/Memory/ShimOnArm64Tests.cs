using Xunit;

namespace Cbd.Tests.Memory;

public sealed class ShimOnArm64Tests
{
    private const string Compiler = "/usr/bin/aarch64-linux-gnu-gcc";
    private const string Emulator = "/usr/bin/qemu-aarch64";

    [Fact]
    public void Shim_builds_for_arm64_and_its_forms_agree()
    {
        Assert.SkipUnless(File.Exists(Compiler) && File.Exists("/usr/aarch64-linux-gnu/include/stdio.h"), "the arm64 cross compiler or its C library (gcc-aarch64-linux-gnu, libc6-dev-arm64-cross) is not installed");
        using var files = new TemporaryDirectory();
        string root = RepositoryRoot();
        string shim = System.IO.Path.Combine(root, "src/native");
        KernelTests.Run(System.IO.Path.Combine(shim, "build.sh"), $"arm64 {files.PathOf("out")}");
        string check = System.IO.Path.Combine(root, "tests/Cbd.Tests/Memory/shim-check.c");
        KernelTests.Run(Compiler, $"-O2 -static -Wall -Werror -I {shim} {check} {files.PathOf("out/libcbdnative.a")} -o {files.PathOf("check")}");
        Assert.SkipUnless(File.Exists(Emulator), "it was built, but there is no emulator (qemu-user) to run it");
        Assert.Equal("e3069283", KernelTests.Run(Emulator, files.PathOf("check")));
    }

    private static string RepositoryRoot()
    {
        DirectoryInfo? directory = new(AppContext.BaseDirectory);
        while (directory is not null && !File.Exists(System.IO.Path.Combine(directory.FullName, "Cbd.slnx")))
            directory = directory.Parent;
        return directory?.FullName ?? throw new InvalidOperationException("the tests do not run inside the repository");
    }
}
