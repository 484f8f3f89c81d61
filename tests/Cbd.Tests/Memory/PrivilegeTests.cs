using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Memory;

public sealed class The_remedy_for_a_missing_capability
{
    [Fact]
    public void Is_not_to_be_root_for_root()
    {
        Assert.Contains("--cap-add", Privilege.Remedy("CAP_SYS_ADMIN", isRoot: true), StringComparison.Ordinal);
        Assert.DoesNotContain("as root", Privilege.Remedy("CAP_SYS_ADMIN", isRoot: true), StringComparison.Ordinal);
        Assert.Contains("run cbdd as root, or give it CAP_SYS_ADMIN", Privilege.Remedy("CAP_SYS_ADMIN", isRoot: false), StringComparison.Ordinal);
    }
}
