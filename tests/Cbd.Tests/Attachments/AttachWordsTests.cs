using Cbd.Host.Attachments;
using Xunit;

namespace Cbd.Tests.Attachments;

public sealed class AttachWordsTests
{
    [Fact]
    public void The_control_API_has_the_words_of_the_kinds_in_their_order()
    {
        Assert.Equal(AttachChoice.Order, AttachWords.Kinds);
        Assert.Equal((AttachChoice.Auto, AttachChoice.None), (AttachWords.Auto, AttachWords.None));
    }
}
